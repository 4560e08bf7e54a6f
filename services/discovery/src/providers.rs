//! Service discovery mechanisms, one module each. `static_configs` needs none: its groups are in the file.

pub(crate) mod file;
