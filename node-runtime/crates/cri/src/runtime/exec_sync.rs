//! ExecSync: a non-zero exit code is an answer, not an error. The answer fits into what a kubelet takes in.
use crate::MAX_MESSAGE;
use berth_engine::Engine;
use berth_model::Error;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of both streams together: a kubelet receives 16 MiB a message, and there is more in one than these bytes.
const BOTH_STREAMS: usize = MAX_MESSAGE - 64 * 1024;

pub(crate) async fn call(engine: &Arc<Engine>, request: wire::ExecSyncRequest) -> Result<wire::ExecSyncResponse> {
    let seconds = u64::try_from(request.timeout).map_err(|_| Error::invalid("timeout", "must not be negative"))?;
    let mut output = engine.exec_sync(&request.container_id, request.cmd, Duration::from_secs(seconds)).await?;
    let (stdout, stderr) = shares(output.stdout.len(), output.stderr.len());
    output.stdout.truncate(stdout);
    output.stderr.truncate(stderr);
    Ok(wire::ExecSyncResponse { stdout: output.stdout, stderr: output.stderr, exit_code: output.code })
}

/// How much of each stream is told: all of a stream that needs less than half, and half of the room at least.
fn shares(stdout: usize, stderr: usize) -> (usize, usize) {
    let stdout = stdout.min(BOTH_STREAMS - stderr.min(BOTH_STREAMS / 2));
    (stdout, stderr.min(BOTH_STREAMS - stdout))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn the_room_is_shared_fairly() {
        let (all, half) = (BOTH_STREAMS, BOTH_STREAMS / 2);
        assert_eq!(shares(10, 20), (10, 20));
        assert_eq!(shares(all, 0), (all, 0));
        assert_eq!(shares(0, 2 * all), (0, all));
        assert_eq!(shares(all, all), (half, half));
        assert_eq!(shares(all, 100), (all - 100, 100));
        assert_eq!(shares(100, all), (100, all - 100));
    }

    #[test]
    fn the_fullest_answer_is_below_the_kubelets_limit() {
        let (stdout, stderr) = shares(usize::MAX, usize::MAX);
        let answer = wire::ExecSyncResponse { stdout: vec![0; stdout], stderr: vec![0; stderr], exit_code: i32::MIN };
        assert!(answer.encoded_len() + 5 < MAX_MESSAGE, "with the five bytes in front of a gRPC message");
    }
}
