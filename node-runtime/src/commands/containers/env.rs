//! Variables as `-e` and `--env-file` give them. Pure, but for reading our own environment and the files.
use anyhow::{Context, Result, bail};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;

/// Longest file of variables in bytes.
const MAX_FILE: u64 = 1 << 20;

/// `NAME=VALUE`, or `NAME` with the value that it has here; one that has none is left out, as docker does.
pub fn variables(texts: &[String]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut variables = Vec::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.as_bytes().to_vec())),
            None => (text.as_str(), std::env::var_os(text).map(OsStringExt::into_vec)),
        };
        if name.is_empty() || name.contains('\0') {
            // The value may be a secret: it is not repeated.
            bail!("--env: must be NAME=VALUE or NAME, with a NAME");
        }
        variables.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(variables)
}

/// The lines of files: `NAME=VALUE` or `NAME`; empty ones and those that begin with `#` are left out.
pub fn files(paths: &[String]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for path in paths {
        let mut text = String::new();
        let read = std::fs::File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_string(&mut text));
        read.with_context(|| format!("--env-file {path}"))?;
        if text.len() as u64 > MAX_FILE {
            bail!("--env-file {path}: is larger than {MAX_FILE} bytes");
        }
        let kept = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.extend(kept.map(str::to_owned));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_given_or_taken_from_here() {
        let read = |texts: &[&str]| variables(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        let pair = |n: &str, v: &str| (n.to_owned(), v.as_bytes().to_vec());
        assert_eq!(read(&["A=1", "B=x=y", "C="]).unwrap(), [pair("A", "1"), pair("B", "x=y"), pair("C", "")]);
        assert_eq!(read(&["PATH"]).unwrap()[0].0, "PATH");
        assert!(read(&["NOT_SET_ANYWHERE_AT_ALL"]).unwrap().is_empty());
        let error = read(&["=secret"]).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn files_have_comments() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        std::fs::write(&path, "# no\n\nA=1\n  B=2 # part of it\n").unwrap();
        assert_eq!(files(&[path.to_string_lossy().into_owned()]).unwrap(), ["A=1", "B=2 # part of it"]);
        assert!(files(&["/nowhere".to_owned()]).unwrap_err().to_string().contains("/nowhere"));
    }
}
