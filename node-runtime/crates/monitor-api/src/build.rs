//! Which build a program is of, as far as daemon and init must agree: [`crate::spec`] and [`crate::sync`] are not frozen.
//!
//! The daemon looks for init's build in init's program before it hands it over.

/// What stands before a build's name in a program.
const MARK: &str = "berth-init-build:";
/// Longest name of a build.
const MAX_NAME: usize = 64;

#[cfg(not(feature = "next-version"))]
macro_rules! name {
    () => {
        concat!(env!("CARGO_PKG_VERSION"), "+", env!("BERTH_INIT_CONTRACT"))
    };
}
#[cfg(feature = "next-version")]
macro_rules! name {
    () => {
        concat!(env!("CARGO_PKG_VERSION"), "-next+", env!("BERTH_INIT_CONTRACT"))
    };
}

/// This build: version and hash of the contract.
pub const BUILD: &str = name!();

/// The name with its mark; a program that uses it carries it in its file.
pub static MARKED: &str = concat!("berth-init-build:", name!(), ";");

/// The build that a program's bytes tell. `None` for a program that tells none.
pub fn of_program(bytes: &[u8]) -> Option<&str> {
    let mut rest = bytes;
    // The mark stands alone in the code that looks for it, so more than one place may carry it.
    while let Some(at) = rest.windows(MARK.len()).position(|w| w == MARK.as_bytes()) {
        rest = rest.get(at + MARK.len()..)?;
        let end = rest.iter().take(MAX_NAME + 1).position(|b| *b == b';');
        let name = end.and_then(|end| std::str::from_utf8(&rest[..end]).ok());
        if let Some(name) = name.filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_graphic())) {
            return Some(name);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_tells_its_build() {
        let program = [b"\x7fELF".as_slice(), MARK.as_bytes(), b"\0junk", MARKED.as_bytes(), b"\0"].concat();
        assert_eq!(of_program(&program), Some(BUILD));
        assert_eq!(of_program(b"berth-init-build:"), None);
        assert_eq!(of_program(b"an older program"), None);
        assert!(BUILD.len() <= MAX_NAME);
    }
}
