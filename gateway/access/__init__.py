"""Who may call, and how much.

Who: `authentication` decides by `keys` (their files: `key_files`, `key_yaml`, `key_edits`, `key_words`, `key_secret`)
or by tokens (`jwt`, `claims`, `jwks`, `signing_keys`); `brake` slows down who guesses, by `source`; `callers` is what
comes of it.

How much: `quota` counts in memory (`tally`, `windows`), `shared` in Valkey or Redis (`store` and the scripts in Lua),
both by `limits`; `admission` lets requests in, and has those wait in a `queue` that are too many.
"""
