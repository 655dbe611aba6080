//! Large blobs over several connections: whole, in order, under their memory, and no worse than one where that is not liked.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a failed expectation is a failed test

mod common;
use berth_model::{ErrorKind, Reference, Result};
use berth_registry::{Auth, Client, ClientConfig, Descriptor, HostConfig, Mirror, Transfer};
use berth_test_registry::{Fault, Options, Registry, When};
use bytes::Bytes;
use common::{blob, config};
use futures_util::StreamExt;
use std::time::{Duration, Instant};

const ANON: Auth = Auth::Anonymous;
const MIB: u64 = 1 << 20;

struct Big {
    registry: Registry,
    reference: Reference,
    descriptor: Descriptor,
    bytes: Bytes,
}

async fn big(size: u64) -> Big {
    let registry = Registry::start(Options::default()).await.unwrap();
    let bytes: Bytes =
        (0..size).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect::<Vec<_>>().into();
    let digest = registry.put_blob(bytes.clone());
    let reference = Reference::parse(&registry.reference("a:b")).unwrap();
    let descriptor =
        Descriptor { media_type: "x".into(), digest, size, platform: None, annotations: Default::default() };
    Big { registry, reference, descriptor, bytes }
}

fn several(connections: u32) -> ClientConfig {
    let transfer = Transfer { connections, range_bytes: MIB / 2, min_bytes: MIB, buffer_bytes: 8 * MIB };
    let mut config = ClientConfig { transfer, ..config() };
    config.timeouts.stall = Duration::from_secs(2);
    config
}

fn client(connections: u32) -> Client {
    Client::new(several(connections)).unwrap()
}

async fn fetch(b: &Big, client: &Client) -> Result<Vec<u8>> {
    blob(client, &b.reference, &b.descriptor, &ANON).await
}

/// Ratios in one run: each answer is slowed down, so several at a time bring more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_connections_are_faster_where_each_is_slow() {
    let b = big(6 * MIB + 12345).await;
    let throttle = Fault::Delay { per_chunk: Duration::from_millis(25), chunk: 64 << 10 };
    b.registry.inject(When::blob(&b.descriptor.digest), throttle);
    let mut times = Vec::new();
    for connections in [1, 4] {
        let begun = Instant::now();
        assert_eq!(fetch(&b, &client(connections)).await.unwrap(), b.bytes);
        times.push(begun.elapsed());
    }
    println!(
        "1 connection {:?}, 4 connections {:?}, ratio {:.2}",
        times[0],
        times[1],
        times[0].as_secs_f64() / times[1].as_secs_f64()
    );
    assert!(times[1] * 2 < times[0], "{times:?}");
    assert!(b.registry.peak_bodies() <= 4, "{} at a time", b.registry.peak_bodies());
}

#[tokio::test]
async fn small_blobs_and_one_connection_take_one_request() {
    let b = big(3 * MIB).await;
    fetch(&b, &client(1)).await.unwrap();
    let small = big(MIB - 1).await;
    fetch(&small, &client(8)).await.unwrap();
    for registry in [&b.registry, &small.registry] {
        let requests = registry.requests();
        assert_eq!((requests.len(), requests[0].header("range")), (1, None));
    }
}

#[tokio::test]
async fn an_offset_is_where_ranges_begin() {
    let b = big(3 * MIB).await;
    let mut stream = client(4).blob(&b.reference, &b.descriptor, &ANON, MIB + 7).await.unwrap();
    let mut found = Vec::new();
    while let Some(piece) = stream.next().await {
        found.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(found, b.bytes[MIB as usize + 7..]);
    assert_eq!(
        b.registry.requests()[0].header("range"),
        Some(format!("bytes={}-{}", MIB + 7, MIB + MIB / 2 + 6).as_str())
    );
}

#[tokio::test]
async fn broken_ranges_are_resumed_one_by_one() {
    let b = big(4 * MIB).await;
    b.registry.inject_times(When::any(), Fault::Truncate { after: 100_000 }, 5);
    assert_eq!(fetch(&b, &client(4)).await.unwrap(), b.bytes);
    assert_eq!(b.registry.bytes_served(), b.descriptor.size, "nothing was sent twice");
}

#[tokio::test]
async fn a_registry_without_ranges_sends_it_in_one() {
    let b = big(3 * MIB).await;
    b.registry.inject(When::any(), Fault::NoRange);
    assert_eq!(fetch(&b, &client(4)).await.unwrap(), b.bytes);
    assert_eq!(b.registry.requests().len(), 1);
    assert_eq!(b.registry.bytes_served(), b.descriptor.size);
}

#[tokio::test]
async fn a_registry_without_ranges_behind_a_torn_mirror_sends_nothing_twice() {
    let b = big(3 * MIB).await;
    let mirror = Registry::start(Options::default()).await.unwrap();
    mirror.put_blob(b.bytes.clone());
    mirror.inject(When::any(), Fault::Truncate { after: 100_000 });
    b.registry.inject(When::any(), Fault::NoRange);
    let settings = HostConfig { mirrors: vec![Mirror::new(mirror.url())], ..HostConfig::default() };
    let hosts = [(b.registry.host(), settings)].into();
    let client = Client::new(ClientConfig { hosts, ..several(4) }).unwrap();
    assert_eq!(fetch(&b, &client).await.unwrap(), b.bytes);
    assert!(mirror.requests().len() > 2, "ranges were fetched ahead at the mirror");
}

#[tokio::test]
async fn ranges_that_lie_are_refused() {
    for range in ["bytes 0-9/10", "bytes 1-524288/3145728", "bytes 0-524287/99", "bytes */3145728", "nonsense"] {
        let b = big(3 * MIB).await;
        b.registry.inject(When::any(), Fault::ContentRange(range.into()));
        let e = fetch(&b, &client(4)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::FailedPrecondition, "{range}: {e}");
        assert!(e.message().contains("is due"), "{e}");
    }
}

#[tokio::test]
async fn a_registry_that_limits_connections_is_served_one_by_one() {
    let b = big(4 * MIB).await;
    // The first range streams; whatever is fetched ahead is refused for as long as its attempts last.
    let ahead = When::any();
    let first = client(4).blob(&b.reference, &b.descriptor, &ANON, 0).await.unwrap();
    b.registry.inject_times(ahead, Fault::Status { code: 429, retry_after: None }, 9);
    let all: Vec<_> = first.collect().await;
    let all: Result<Vec<Bytes>> = all.into_iter().collect();
    assert_eq!(all.unwrap().concat(), b.bytes);
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_transfers() {
    let b = big(16 * MIB).await;
    let slow = Fault::Delay { per_chunk: Duration::from_millis(20), chunk: 16 << 10 };
    b.registry.inject(When::any(), slow);
    let mut stream = client(4).blob(&b.reference, &b.descriptor, &ANON, 0).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let served = b.registry.bytes_served();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(b.registry.bytes_served(), served, "somebody still reads");
}

#[tokio::test]
async fn memory_for_ranges_ahead_is_bounded() {
    let b = big(8 * MIB).await;
    let transfer = Transfer { connections: 16, range_bytes: MIB / 2, min_bytes: MIB, buffer_bytes: MIB };
    let client = Client::new(ClientConfig { transfer, ..config() }).unwrap();
    let mut stream = client.blob(&b.reference, &b.descriptor, &ANON, 0).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Two ranges ahead, and what the head's connection holds.
    assert!(
        b.registry.bytes_served() <= 2 * MIB,
        "{} bytes were sent to a reader that waits",
        b.registry.bytes_served()
    );
    let mut total = first.len() as u64;
    while let Some(piece) = stream.next().await {
        total += piece.unwrap().len() as u64;
    }
    assert_eq!(total, b.descriptor.size);
}
