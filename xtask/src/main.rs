//! The project's own commands: `cargo xtask quickstart|test|guest|package|images|bench|tools|generate|tidy|help`. Owns: what a checkout can do
//! with itself.
//! Must not: be linked by, or link, anything of the product; it sees the product as files, crates and programs.
#![forbid(unsafe_code)]

mod bench;
mod cache;
mod chart;
mod generate;
mod images;
mod install;
mod package;
mod programs;
mod quickstart;
mod run;
mod test;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  quickstart      build release programs, run one pod on this machine, show it, and remove everything (needs root);
                  --keep leaves it running, --image REF runs your image, --help says more;
                  --cluster takes a node of a real cluster over from containerd and gives it back
  test [TIER…]    install what the tests need and run the tiers, by default all: static unit node guest
                  cluster (the last three need root); `full` (the cluster's way under Helm 3, and with kills) by name only
  guest TEST…     the tests of some programs of tests/node in the guest, such as guest_guide (needs root)
  package [KIND…] a deb and an rpm of the node half, in target/package; --help says more
  images          the images of operator and agent as OCI layouts, in target/images; --help says more
  bench [PODS]    a release build beside containerd: memory and processor time for so many pods (10; needs root)
  tools [NAME…]   build programs and images of others that the tests use, by default all (crictl etcd helm peers kubernetes
                  images), and print where they are, as environment for a test that you run by hand
  generate        write what is generated and committed anew: the definitions of our kinds for the API server (crds/generated), what
                  the chart carries of other directories, manifests/install.yaml; --check only compares
  tidy            check the rules that no compiler checks: crate edges, unsafe, headers, sizes, formats
  help            this text

What is slow to build is kept in ${BERTH_CACHE:-$HOME/.cache/berth}; it can be deleted at any time.
";

/// Result of a command: the error is a sentence for people.
pub type Result<T = ()> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.split_first() {
        Some((command, args)) if command == "quickstart" => quickstart::main(args),
        Some((command, tiers)) if command == "test" => test::main(tiers),
        // `test` starts this for itself.
        Some((command, names)) if command == "ahead" => test::made_ahead(names),
        Some((command, names)) if command == "guest" && !names.is_empty() => test::guest_only(names),
        Some((command, args)) if command == "package" => package::main(args),
        Some((command, args)) if command == "images" => images::main(args),
        Some((command, [])) if command == "bench" => bench::main(None),
        Some((command, [pods])) if command == "bench" => bench::main(Some(pods)),
        Some((command, names)) if command == "tools" => tools::main(names),
        Some((command, args)) if command == "generate" => generate::main(args),
        Some((command, [])) if command == "tidy" => tidy::main(),
        Some((command, [])) if matches!(command.as_str(), "help" | "-h" | "--help") => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(format!("what to do?\n\n{HELP}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) if message.is_empty() => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
