//! A terminal at which somebody answers what a program asks.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    process::{Child, ChildStderr, Stdio},
};

use rustix::{
    fs::OFlags,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};

use super::program::Program;

/// A terminal, and the keyboard before it.
pub struct TestTerminal {
    person: File,
    program: File,
}

impl TestTerminal {
    /// One that nobody has typed at.
    pub fn open() -> Self {
        let person: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let path = ptsname(&person, Vec::new()).unwrap();
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits() as i32);
        Self {
            person: person.into(),
            program: options.open(path.to_str().unwrap()).unwrap(),
        }
    }

    /// Starts a command at it, and waits until it has asked.
    pub fn start(&self, mut command: Program, question: &str) -> AskedProgram {
        let mut child = command.spawn_with(Stdio::from(self.program.try_clone().unwrap()));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains(question) {
            assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "it did not ask: {said}");
        }
        AskedProgram { child, stderr, said }
    }

    /// As a person does, with the line's end.
    pub fn type_in(&self, text: &str) {
        (&self.person).write_all(text.as_bytes()).unwrap();
    }

    /// All that it has shown.
    pub fn shown(&self) -> String {
        (&self.program).write_all(b"the end").unwrap();
        let mut shown = Vec::new();
        while !shown.ends_with(b"the end") {
            let mut byte = [0];
            (&self.person).read_exact(&mut byte).unwrap();
            shown.push(byte[0]);
        }
        String::from_utf8(shown).unwrap()
    }

    /// Whether it echoes.
    pub fn shows_what_is_typed(&self) -> bool {
        tcgetattr(&self.program).unwrap().local_modes.contains(LocalModes::ECHO)
    }
}

/// A program that has asked.
pub struct AskedProgram {
    pub child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl AskedProgram {
    /// Its exit code, and all that it said.
    pub fn end(mut self) -> (Option<i32>, String) {
        self.stderr.read_to_string(&mut self.said).unwrap();
        let output = self.child.wait_with_output().unwrap();
        let said = self.said + &String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said)
    }
}
