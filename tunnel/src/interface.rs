//! The name of a network interface, checked where it is made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a network interface, as the kernel and nft spell it.
///
/// At most 15 bytes (`IFNAMSIZ` less its terminator). Narrower than the kernel, which allows anything but `/`, `:` and
/// white space: only letters, digits, `.`, `_`, `-` and `@`, because nft reads a trailing `*` as a wildcard and a name
/// must never widen a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

/// Why a text is not an interface name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an interface name (1 to 15 letters, digits, `.`, `_`, `-` or `@`)")]
pub struct InvalidInterfaceName(String);

impl InterfaceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = InvalidInterfaceName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
        // `.` and `..` would be paths below /proc/sys/net.
        let good = (1..=15).contains(&name.len()) && name.chars().all(allowed) && name != "." && name != "..";
        if good { Ok(Self(name.to_owned())) } else { Err(InvalidInterfaceName(name.to_owned())) }
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = InvalidInterfaceName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_special_meaning_in_nft_or_the_file_system_is_no_interface_name() {
        for bad in ["", "eth*", "a/b", "..", ".", "eth 0", "sixteen-letters-", "eth0\"", "eth0\n", "ëth"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad:?}");
        }
        for good in ["eth0", "enp7s0", "ens10", "wg-office", "eth0.100", "veth@x", "fifteen-letters"] {
            assert_eq!(good.parse::<InterfaceName>().unwrap().as_str(), good);
        }
    }
}
