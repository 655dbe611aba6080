//! A user whom the image does not have is refused at create, where people and kubelets look for such mistakes.
//!
//! Owns: the question whether the image's own files decide, and their answer. Must not: decide who the process is; init does that
//! at the start, in the container's root with its mounts. Where a mount may bring other files, nothing is said here.
use crate::context::Engine;
use berth_images::ImageRecord;
use berth_model::account::{GROUP, Lines, MAX_ACCOUNT_FILE, PASSWD};
use berth_model::{ContainerConfig, Error, Result, ResultExt};
use std::io::Cursor;
use std::path::Path;

impl Engine {
    /// Errors: `FailedPrecondition` for a name that the image's files do not have; `InvalidArgument` for a number out of range.
    pub(crate) async fn need_user(&self, config: &ContainerConfig, image: &ImageRecord) -> Result<()> {
        let user = berth_oci::spec::user(&config.security, &image.config);
        let of_image =
            || format!("image {}", if config.user_image.is_empty() { &config.image } else { &config.user_image });
        if !user.needs_names().context(of_image)? {
            return Ok(());
        }
        let mut files = Vec::new();
        for name in [PASSWD, GROUP] {
            // What a mount hides is not looked at.
            if config.mounts.iter().any(|mount| hides(&mount.container_path, &[Path::new(name)])) {
                return Ok(());
            }
            let file = self.images.read_file(&image.id, name, MAX_ACCOUNT_FILE).await?;
            let place = file.as_ref().map_or(Path::new(name), |file| &file.path);
            if config.mounts.iter().any(|mount| hides(&mount.container_path, &[Path::new(name), place])) {
                return Ok(());
            }
            files.push((name, file.map(|file| file.bytes)));
        }
        let lines = |wanted: &str| -> Result<Lines> {
            let found = files.iter_mut().find(|(name, _)| *name == wanted).and_then(|(_, bytes)| bytes.take());
            Ok(found.map(|bytes| -> Box<dyn std::io::BufRead> { Box::new(Cursor::new(bytes)) }))
        };
        user.resolve::<Error>(lines).map(drop).context(of_image)
    }
}

/// Whether something else than the image's file may be seen there.
fn hides(mount: &str, places: &[&Path]) -> bool {
    places.iter().any(|place| place.starts_with(mount.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_over_the_file_or_a_directory_above_hide_it() {
        let places = [Path::new("/etc/passwd"), Path::new("/config/passwd")];
        for (mount, wanted) in [
            ("/etc", true),
            ("/etc/", true),
            ("/etc/passwd", true),
            ("/config", true),
            ("/etc/hosts", false),
            ("/etc/pass", false),
            ("/", true),
        ] {
            assert_eq!(hides(mount, &places), wanted, "{mount}");
        }
    }
}
