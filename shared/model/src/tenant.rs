//! Tenants: who owns a series.

use std::fmt;
use std::sync::Arc;

/// The name of the HTTP header and gRPC metadata key that carries the tenant.
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// A tenant's name: 1 to 150 characters of `[A-Za-z0-9!._*'()-]`, neither `.` nor `..` and not starting with `_`
/// (the table's partition names and the log's keys are made of it).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

/// A tenant name that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid tenant {name:?}: want 1 to 150 characters of [A-Za-z0-9!._*'()-], not '.', '..' or a leading '_'"
)]
pub struct TenantError {
    /// The refused name, cut at 150 characters.
    pub name: String,
}

impl Tenant {
    /// The tenant of those who never heard of tenants.
    pub const DEFAULT: &'static str = "default";

    /// Checks a name.
    ///
    /// # Errors
    /// When the name breaks the rule above.
    pub fn new(name: &str) -> Result<Self, TenantError> {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"!._*'()-".contains(&b);
        let is_valid = (1..=150).contains(&name.len())
            && name.bytes().all(is_allowed)
            && !matches!(name, "." | "..")
            && !name.starts_with('_');
        if is_valid {
            Ok(Self(Arc::from(name)))
        } else {
            Err(TenantError { name: name.chars().take(150).collect() })
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self(Arc::from(Self::DEFAULT))
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Tenant;

    #[test]
    fn names_that_would_break_paths_are_refused() {
        for good in ["default", "a", "team-1", "A.b_c!*'()"] {
            assert_eq!(Tenant::new(good).expect("valid").as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "_delta_log", "a b", "é", "a=b", &"x".repeat(151)] {
            assert!(Tenant::new(bad).is_err(), "{bad:?}");
        }
    }
}
