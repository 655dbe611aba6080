//! The sample image, the registry that serves it, and the sample documents with the registry's address in them.
use crate::Result;
use berth_test_registry::{ImageBuilder, Layer, Options, Registry};
use std::fs;
use std::path::Path;

/// Address in the sample documents.
const PLACEHOLDER: &str = "localhost:5000";
const PORT: u16 = 5000;
/// Sizes of layers without use, in bytes: a pull has something to show, and layers to fetch at the same time.
const FILLERS: [usize; 2] = [6 << 20, 3 << 20];

const RUNTIME_CONFIG: &str = include_str!("../../../manifests/samples/runtimeconfig.yaml");
const IMAGE_POLICY: &str = include_str!("../../../manifests/samples/imagepolicy.yaml");
const POD: &str = include_str!("../../../manifests/samples/pod.yaml");
const DENIED_POD: &str = include_str!("../../../manifests/samples/denied-pod.yaml");

/// Serves the image on the samples' port, or, if somebody has that, on a free one. The image's program is `berth-web` of `bin`.
pub fn serve(bin: &Path) -> Result<Registry> {
    let start = |port| Registry::start_blocking(Options { port, ..Options::default() });
    let registry = start(PORT)
        .or_else(|_| {
            println!("   port {PORT} is taken: the registry takes a free one, and the documents are changed to it");
            start(0)
        })
        .map_err(|e| format!("registry: {e}"))?;
    let program = bin.join("berth-web");
    let bytes = fs::read(&program).map_err(|e| format!("{}: {e}", program.display()))?;
    let image = image_of(bytes).build().map_err(|e| format!("sample image: {e}"))?;
    for repository in ["samples/web", "untrusted/web"] {
        registry.push_built(repository, Some("v1"), &image);
    }
    Ok(registry)
}

fn image_of(program: Vec<u8>) -> ImageBuilder {
    let filler = |size: usize| Layer::new().file(&format!("usr/share/filler-{size}"), 0o644, noise(size));
    let image = FILLERS.iter().fold(ImageBuilder::new("samples/web", "v1"), |image, size| image.layer(filler(*size)));
    image.layer(Layer::new().dir("tmp").file("berth-web", 0o755, program)).entrypoint(["/berth-web"]).env(["PORT=80"])
}

/// Bytes that no compressor makes smaller (xorshift64): a layer of zeros would be refused as a bomb.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..size.div_ceil(8)).flat_map(|_| next()).take(size).collect()
}

/// Host of references to this registry.
pub fn host(registry: &Registry) -> String {
    format!("localhost:{}", registry.addr().port())
}

/// Reference of the sample image.
pub fn image(registry: &Registry) -> String {
    format!("{}/samples/web:v1", host(registry))
}

/// Writes the documents to `etc`, and the pods to `base`, with the registry's address, and the user's image if there is one.
pub fn write(base: &Path, etc: &Path, host: &str, image: Option<&str>) -> Result {
    let put =
        |path: std::path::PathBuf, text: String| fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()));
    fs::create_dir_all(etc).map_err(|e| format!("{}: {e}", etc.display()))?;
    put(etc.join("runtimeconfig.yaml"), RUNTIME_CONFIG.to_owned())?;
    put(etc.join("imagepolicy.yaml"), IMAGE_POLICY.replace(PLACEHOLDER, host))?;
    let pod = image.map_or_else(|| POD.replace(PLACEHOLDER, host), |image| with_image(POD, image));
    put(base.join("pod.yaml"), pod)?;
    put(base.join("denied-pod.yaml"), DENIED_POD.replace(PLACEHOLDER, host))
}

/// The pod with another image.
fn with_image(pod: &str, image: &str) -> String {
    let line = |l: &str| match l.split_once("image: ") {
        Some((before, _)) if before.trim().is_empty() => format!("{before}image: {image}\n"),
        _ => format!("{l}\n"),
    };
    pod.lines().map(line).collect()
}

/// What the samples ask for, to be compared with what the kernel says.
pub mod expected {
    /// `memory: 128Mi`.
    pub const MEMORY: u64 = 128 << 20;
    /// `cpu: 500m`.
    pub const CPU_MILLIS: u64 = 500;
    /// `pidsLimit: 256`.
    pub const PIDS: u64 = 256;
    /// The policy that refuses.
    pub const POLICY: &str = "baseline";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_ask_for_what_is_expected() {
        assert!(POD.contains("memory: 128Mi") && POD.contains("cpu: 500m") && POD.contains("containerPort: 80"));
        assert!(RUNTIME_CONFIG.contains(&format!("pidsLimit: {}\n", expected::PIDS)));
        assert!(IMAGE_POLICY.contains(&format!("name: {}\n", expected::POLICY)));
        assert!(IMAGE_POLICY.contains(&format!("- {PLACEHOLDER}/untrusted\n")));
        assert!(DENIED_POD.contains(&format!("image: {PLACEHOLDER}/untrusted/web:v1\n")));
    }

    #[test]
    fn the_users_image_takes_the_place_of_the_samples() {
        let pod = with_image(POD, "example.com/a:1");
        assert!(pod.contains("\n      image: example.com/a:1\n") && !pod.contains("samples/web"));
        assert_eq!(pod.lines().count(), POD.lines().count());
    }
}
