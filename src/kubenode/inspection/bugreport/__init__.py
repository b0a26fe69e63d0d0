"""All that a bug report needs of a node, in one archive, and no secret: `Archive` lists what it took and what it left out."""
