//! The tests that run compiled code, again at every lower level of the instruction set that this machine has. A level is
//! the process's, so each is a process of its own.

use std::process::Command;
use strang::runtime::kernels::{Level, level::LEVEL_VARIABLE};

#[test]
fn tests_pass_at_every_level() {
    let levels = Level::available();
    let (_, lower) = levels.split_last().unwrap();
    for level in lower {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["circuits::", "files::", "random::"])
            .env(LEVEL_VARIABLE, level.name())
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "at level {level}:\n{printed}{}", String::from_utf8_lossy(&output.stderr));
        assert!(printed.contains("test random::circuits_agree_with_the_interpreter ... ok"), "{printed}");
    }
}
