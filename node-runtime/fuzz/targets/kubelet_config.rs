//! What a kubelet was told, in files and on a command line that others wrote: anything is read, and a change of it says what was meant or is refused.
#![no_main]
use berth_adopt::edit::{Wish, configuration, drop_in, endpoint_flag, unit_override};
use berth_adopt::kubelet::{Configuration, Files, STATS_GATE};
use std::io;
use std::path::{Path, PathBuf};

const ENDPOINT: &str = "unix:///run/berth/berth.sock";

struct Texts<'a>(&'a str, &'a str);

impl Files for Texts<'_> {
    fn text(&self, path: &Path) -> io::Result<String> {
        Ok(if path.ends_with("1.conf") { self.1 } else { self.0 }.to_owned())
    }

    fn below(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(vec![dir.join("1.conf"), dir.join("2.yaml")])
    }
}

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &str)| {
    let (file, drop, line) = input;
    let arguments =
        || line.split(' ').map(str::to_owned).chain(["--config=/c".to_owned(), "--config-dir=/d".to_owned()]);
    let told = Configuration::read(arguments().collect(), &Texts(file, drop));
    let _ = (told.endpoint(), told.healthz(), told.gate(STATS_GATE), told.origin("maxPods"));
    let wish = Wish { endpoint: Some(ENDPOINT.to_owned()), gate: Some(STATS_GATE) };
    if let Ok(changed) = configuration(file, &wish) {
        let told = Configuration::read(vec!["kubelet".into(), "--config=/c".into()], &Texts(&changed, ""));
        assert_eq!((told.endpoint().as_str(), told.gate(STATS_GATE)), (ENDPOINT, Some(true)));
    }
    let added = drop_in(&Wish { endpoint: Some(line.to_owned()), gate: None });
    let told = Configuration::read(vec!["kubelet".into(), "--config=/c".into()], &Texts(&added, ""));
    // What YAML cannot say in one line of plain characters is nobody's socket.
    let plain = !line.is_empty() && line.bytes().all(|b| (b' '..=b'~').contains(&b));
    assert!(!plain || told.endpoint() == line, "{added}");
    if let Some(changed) = endpoint_flag(file, ENDPOINT) {
        assert!(changed.contains(ENDPOINT));
    }
    let _ = unit_override(&[file, drop], ENDPOINT);
});
