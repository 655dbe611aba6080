//! Links and nftables of this process's network namespace.
use std::process::{Command, Stdio};
use std::{fs, io};

/// Names of the links, from /proc/net/dev (two lines of header, then `name: counters`).
pub fn links() -> io::Result<Vec<(String, String)>> {
    let text = fs::read_to_string("/proc/self/net/dev")?;
    let names = text.lines().skip(2).filter_map(|l| l.split_once(':')).map(|(name, _)| name.trim().to_owned());
    Ok(names.map(|name| (name.clone(), name)).collect())
}

/// `family name` of the tables, from `nft list tables`.
pub fn nft_tables() -> io::Result<Vec<(String, String)>> {
    let mut nft = Command::new("nft");
    let output = nft
        .args(["list", "tables"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("nft (package nftables) cannot be run: {e}")))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("nft list tables: {message}")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let tables = text.lines().filter_map(|l| l.trim().strip_prefix("table ")).map(str::to_owned);
    Ok(tables.map(|table| (table.clone(), table)).collect())
}
