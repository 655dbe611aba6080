//! Pipes between the daemon and a command: one end each, close-on-exec, and a bounded reader.
use berth_model::{Error, Result, ResultExt};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// A pipe, or /dev/null in its place.
pub struct Pipe {
    /// The daemon's end; `None` with /dev/null.
    pub ours: Option<OwnedFd>,
    /// The command's end.
    pub theirs: OwnedFd,
}

impl Pipe {
    /// For output: we read.
    pub fn for_output() -> Result<Self> {
        let (read, write) = std::io::pipe().context(|| "pipe")?;
        Ok(Self { ours: Some(read.into()), theirs: write.into() })
    }

    /// For input: we write, if `wanted`; else the command reads nothing.
    pub fn for_stdin(wanted: bool) -> Result<Self> {
        if wanted {
            let (read, write) = std::io::pipe().context(|| "pipe")?;
            return Ok(Self { ours: Some(write.into()), theirs: read.into() });
        }
        let null = std::fs::File::open("/dev/null").context(|| "/dev/null")?;
        Ok(Self { ours: None, theirs: null.into() })
    }
}

/// The read end of a pipe, for async reading.
pub fn reader(fd: OwnedFd) -> Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd_unchecked(nonblocking(fd)?).context(|| "pipe")
}

/// The write end of a pipe, for async writing.
pub fn writer(fd: OwnedFd) -> Result<pipe::Sender> {
    pipe::Sender::from_owned_fd_unchecked(nonblocking(fd)?).context(|| "pipe")
}

/// Reads a stream in the background and keeps its beginning.
pub struct Capture {
    task: tokio::task::JoinHandle<Vec<u8>>,
    stop: watch::Sender<bool>,
}

impl Capture {
    /// Starts reading; at most `limit` bytes are kept, the rest is thrown away so that the writer never blocks.
    pub fn start(stream: OwnedFd, limit: usize) -> Result<Self> {
        let reader = reader(stream)?;
        let (stop, stopped) = watch::channel(false);
        Ok(Self { task: tokio::spawn(read(reader, limit, stopped)), stop })
    }

    /// Waits for the end of the stream, at most `limit` longer: a child in the background may hold it open.
    pub async fn finish(mut self, limit: Duration) -> Vec<u8> {
        if let Ok(read) = tokio::time::timeout(limit, &mut self.task).await {
            return read.unwrap_or_default();
        }
        // The reader is alive and waits; it gives back what it has.
        self.stop.send_replace(true);
        self.task.await.unwrap_or_default()
    }
}

fn nonblocking(fd: OwnedFd) -> Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&fd, true).map_err(|e| Error::from(std::io::Error::from(e)))?;
    Ok(fd)
}

async fn read(mut reader: pipe::Receiver, limit: usize, mut stopped: watch::Receiver<bool>) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let n = tokio::select! {
            read = reader.read(&mut chunk) => match read {
                Ok(0) => return kept,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return kept,
            },
            _ = stopped.wait_for(|s| *s) => return kept,
        };
        let room = limit.saturating_sub(kept.len()).min(n);
        kept.extend_from_slice(&chunk[..room]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn output_is_cut_and_a_held_pipe_does_not_hold_the_answer() {
        let pipe = Pipe::for_output().unwrap();
        let capture = Capture::start(pipe.ours.unwrap(), 1000).unwrap();
        let mut writer = std::fs::File::from(pipe.theirs);
        let writer = tokio::task::spawn_blocking(move || {
            writer.write_all(&[b'x'; 200_000]).unwrap();
            writer
        });
        let held = writer.await.unwrap();
        let output = capture.finish(Duration::from_millis(200)).await;
        assert_eq!(output, vec![b'x'; 1000]);
        drop(held);
    }
}
