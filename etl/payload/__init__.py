"""Pure work on JSON from Anam: decode, clean, take apart, canonical form. The only camelCase."""
