//! Attach: output, ends, and stdin that is closed once.
use crate::client::{hear, read_all, say, socket, typed, upgrade_spdy};
use crate::node::{ALL, Node, Promise, until};
use berth_streaming::spdy;
use std::time::Duration;

fn attach(node: &Node, token: &str, script: &str, stdin_once: bool) {
    let fds = node.container(token, script).into();
    node.promise(token, Promise::Attach { streams: ALL, task: token.into(), fds, stdin: true, stdin_once });
}

#[tokio::test]
async fn output_until_the_container_ends() {
    let node = Node::start().await;
    attach(&node, "c", "read a; echo got $a; echo bad >&2; sleep 0.2; exit 3", false);
    let (mut socket, _) = socket(node.address, "/attach/c", "v4.channel.k8s.io").await;
    say(&mut socket, 0, b"word\n").await;
    let heard = hear(&mut socket, false).await;
    assert_eq!((heard.text(1).as_str(), heard.text(2).as_str()), ("got word\n", "bad\n"));
    // The container's code is not the attach's.
    assert_eq!(heard.status()["status"], "Success");
}

#[tokio::test]
async fn a_client_that_goes_leaves_the_container_alone() {
    let node = Node::start().await;
    for (token, once) in [("kept", false), ("once", true)] {
        attach(&node, token, "sleep 1; echo end", once);
        let (socket, _) = socket(node.address, &format!("/attach/{token}"), "v4.channel.k8s.io").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(socket);
        if once {
            until("stdin is closed", || node.stdin_closed(token)).await;
        }
        until("the container has ended by itself", || node.has_ended(token)).await;
        assert!(node.signals(token).is_empty());
        assert_eq!(node.stdin_closed(token), once);
    }
}

#[tokio::test]
async fn half_closed_stdin_closes_a_stdin_once() {
    let node = Node::start().await;
    attach(&node, "c", "sleep 1; echo end", true);
    let (stream, _) = upgrade_spdy(node.address, "/attach/c", &["v4.channel.k8s.io"]).await;
    let connection = spdy::client(stream, spdy::Limits::default());
    let (mut error, _e) = typed(&connection, "error").await;
    let (_back, mut stdin) = typed(&connection, "stdin").await;
    let (mut stdout, _o) = typed(&connection, "stdout").await;
    let (_stderr, _r) = typed(&connection, "stderr").await;
    tokio::io::AsyncWriteExt::shutdown(&mut stdin).await.unwrap();
    until("stdin is closed", || node.stdin_closed("c")).await;
    assert!(!node.has_ended("c"), "the output goes on");
    assert_eq!(read_all(&mut stdout).await, b"end\n");
    assert!(String::from_utf8(read_all(&mut error).await).unwrap().contains("Success"));
}
