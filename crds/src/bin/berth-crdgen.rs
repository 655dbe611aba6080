//! Writes the API server's definitions of our kinds into the directory that it is given. `cargo xtask generate` runs it.
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("berth-crdgen DIRECTORY");
        return ExitCode::FAILURE;
    };
    for (name, text) in berth_crds::crd::files() {
        let file = dir.join(name);
        if let Err(e) = std::fs::write(&file, text) {
            eprintln!("berth-crdgen: {}: {e}", file.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
