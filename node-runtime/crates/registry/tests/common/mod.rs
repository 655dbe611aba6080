//! What the integration tests share: short times, small images, whole pulls.
#![allow(dead_code, clippy::unwrap_used, missing_docs)] // each test binary uses a part; a failed set-up may panic

use berth_model::{Digest, Reference, Result};
use berth_registry::{
    Auth, Client, ClientConfig, Descriptor, HostConfig, ImageManifest, ManifestKind, RetryPolicy, Timeouts,
    VerifyingStream, parse_manifest,
};
use berth_test_registry::{ImageBuilder, Layer, Options, Registry};
use futures_util::StreamExt;
use std::time::Duration;

/// Nothing here waits longer than a second on purpose.
pub fn config() -> ClientConfig {
    ClientConfig {
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            header: Duration::from_secs(5),
            stall: Duration::from_millis(400),
            ..Timeouts::default()
        },
        retry: RetryPolicy {
            attempts: 3,
            base: Duration::from_millis(10),
            cap: Duration::from_millis(50),
            retry_after_cap: Duration::from_secs(2),
            jitter: || 0.5,
        },
        ..ClientConfig::default()
    }
}

pub fn client() -> Client {
    Client::new(config()).unwrap()
}

pub fn client_for(host: &str, settings: HostConfig) -> Client {
    Client::new(ClientConfig { hosts: [(host.to_owned(), settings)].into(), ..config() }).unwrap()
}

pub fn user(password: &str) -> Auth {
    Auth::Basic { username: "user".into(), password: password.into() }
}

/// One layer of random-looking bytes that do not compress to nothing.
pub fn image() -> ImageBuilder {
    let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    ImageBuilder::new("team/app", "v1").layer(Layer::new().file("data", 0o644, bytes)).entrypoint(["/data"])
}

pub struct Setup {
    pub registry: Registry,
    pub reference: Reference,
    pub digest: Digest,
    pub layer: Descriptor,
    pub layer_bytes: bytes::Bytes,
}

/// A registry that holds [`image`].
pub async fn setup(options: Options) -> Setup {
    let registry = Registry::start(options).await.unwrap();
    let built = image().build().unwrap();
    registry.push_built("team/app", Some("v1"), &built);
    let ManifestKind::Image(parsed) = parse_manifest(&built.manifest, &built.media_type).unwrap() else {
        unreachable!()
    };
    Setup {
        reference: Reference::parse(&registry.reference("team/app:v1")).unwrap(),
        digest: built.digest,
        layer: parsed.layers[0].clone(),
        layer_bytes: built.layers[0].blob.clone(),
        registry,
    }
}

/// Resolves and reads everything, checked; the layers' bytes.
pub async fn pull(client: &Client, reference: &Reference, auth: &Auth) -> Result<Vec<Vec<u8>>> {
    let image = manifest(client, reference, auth).await?;
    client.small_blob(reference, &image.config, auth, 1 << 20).await?;
    let mut layers = Vec::new();
    for layer in &image.layers {
        layers.push(blob(client, reference, layer, auth).await?);
    }
    Ok(layers)
}

pub async fn manifest(client: &Client, reference: &Reference, auth: &Auth) -> Result<ImageManifest> {
    let resolved = client.resolve(reference, auth).await?;
    let raw = client.manifest(reference, &resolved.digest, auth).await?;
    match parse_manifest(&raw.bytes, &raw.media_type)? {
        ManifestKind::Image(image) => Ok(image),
        ManifestKind::Index(_) => unreachable!(),
    }
}

/// One blob, checked.
pub async fn blob(client: &Client, reference: &Reference, descriptor: &Descriptor, auth: &Auth) -> Result<Vec<u8>> {
    let stream = client.blob(reference, descriptor, auth, 0).await?;
    let mut stream = VerifyingStream::new(stream, descriptor.digest.clone(), descriptor.size);
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}
