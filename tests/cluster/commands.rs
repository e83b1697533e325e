//! What people and operators type about hosts.

use crate::harness::process::run;

#[test]
fn the_demonstration_shows_what_it_says() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kvspace"));
    let (status, output, error) = run(command.arg("demo"), b"");
    let output = String::from_utf8_lossy(&output);
    assert_eq!(status.code(), Some(0), "{output}\n{error}");
}
