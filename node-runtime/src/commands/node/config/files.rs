//! Documents that people name: files, directories of them, or standard input.
use anyhow::{Context, Result, bail};
use berth_settings::MAX_DOCUMENT;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most files of one call; a node's documents directory holds no more.
const MAX_FILES: usize = 200;

/// The texts of all files, with their names. Errors: a file that cannot be read; none at all.
pub fn texts(names: &[PathBuf]) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for name in names {
        match name.as_os_str() == "-" {
            true => found.push(("-".into(), read(std::io::stdin().lock()).context("standard input")?)),
            false if name.is_dir() => {
                for file in berth_settings::document_files(name)? {
                    found.push((file.clone(), of(&file)?));
                }
            }
            false => found.push((name.clone(), of(name)?)),
        }
    }
    match found.len() {
        0 => bail!("there is no document: a directory's are the files *.yaml and *.yml"),
        n if n > MAX_FILES => bail!("{n} files, the limit is {MAX_FILES}"),
        _ => Ok(found),
    }
}

fn of(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    read(file).with_context(|| path.display().to_string())
}

fn read(input: impl Read) -> Result<String> {
    let mut text = String::new();
    // One byte more than allowed, so that the parser's limit tells about a longer file.
    input.take(MAX_DOCUMENT as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}
