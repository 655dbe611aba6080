//! The wall clock and random ids, in one place.
use berth_model::{Result, ResultExt, UnixNanos};
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in Unix nanoseconds.
pub(crate) fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// 32 bytes of the kernel's randomness, for ids.
pub(crate) fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    let mut source = std::fs::File::open("/dev/urandom").context(|| "/dev/urandom")?;
    source.read_exact(&mut bytes).context(|| "/dev/urandom")?;
    Ok(bytes)
}

/// 128 bits of the kernel's randomness as text, for what must not be guessed.
pub(crate) fn token() -> Result<String> {
    Ok(random()?[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The kernel's id of this boot; records of another boot describe processes that are gone.
pub(crate) fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).context(|| path)?.trim().to_owned())
}
