//! Checks of paths and names that come in with a request.
use berth_model::{Error, Result};
use std::path::{Component, Path, PathBuf};

/// Longest path (`PATH_MAX` with its terminating zero).
const MAX_PATH: usize = 4095;

/// A path in the container, or on the host: absolute, without `..` and without NUL. Gives it without `.`, doubled and
/// trailing slashes. The error names `field`.
pub(crate) fn absolute(field: &str, path: &str) -> Result<PathBuf> {
    let path = given(field, path)?;
    if !path.is_absolute() {
        return Err(Error::invalid(field, format_args!("{path:?} must be an absolute path")));
    }
    clean(field, path)
}

/// A path below something else: relative, without `..`. Empty is allowed.
pub(crate) fn relative(field: &str, path: &str) -> Result<PathBuf> {
    if path.is_empty() {
        return Ok(PathBuf::new());
    }
    let path = given(field, path)?;
    if path.is_absolute() {
        return Err(Error::invalid(field, format_args!("{path:?} must be a relative path")));
    }
    clean(field, path)
}

fn given<'a>(field: &str, path: &'a str) -> Result<&'a Path> {
    if path.is_empty() {
        return Err(Error::invalid(field, "a path is needed"));
    }
    if path.len() > MAX_PATH {
        return Err(Error::invalid(
            field,
            format_args!("{} bytes are more than a path can have ({MAX_PATH})", path.len()),
        ));
    }
    if path.contains('\0') {
        return Err(Error::invalid(field, "a path cannot contain NUL"));
    }
    Ok(Path::new(path))
}

fn clean(field: &str, path: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => return Err(Error::invalid(field, format_args!("{path:?} must not contain `..`"))),
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    Ok(clean)
}

/// A name for people and records: not empty, at most `limit` bytes, no control characters, no slash.
pub(crate) fn name(field: &str, name: &str, limit: usize) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(field, "must not be empty"));
    }
    if name.len() > limit {
        return Err(Error::invalid(field, format_args!("{} bytes are more than the limit of {limit}", name.len())));
    }
    if name.chars().any(|c| c.is_control() || c == '/') {
        return Err(Error::invalid(field, format_args!("{name:?} must not contain slashes or control characters")));
    }
    Ok(())
}
