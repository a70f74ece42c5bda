//! No secret that the tests use stands in anything that Forebay says in them.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::support::{
    kafka,
    program::{keep, output_dir},
    rabbitmq,
    secrets::{ALL, Leak, PLANTED, search},
};

/// `tests/run.sh` runs it once more when all others are through, over all that they said.
#[test]
fn no_secret_is_in_the_output() {
    // So that there is something, also when this test runs alone.
    drop(keep("nothing"));
    let leaks = search(output_dir());
    assert!(leaks.is_empty(), "{}: {leaks:#?}", output_dir().display());
}

#[test]
fn a_secret_that_is_told_is_found_in_whatever_form() {
    let dir = tempfile::tempdir().unwrap();
    let found = |text: &[u8]| {
        fs::write(dir.path().join("some.stderr"), text).unwrap();
        search(dir.path())
    };
    assert_eq!(found(b"nothing\nof the kind"), []);
    assert_eq!(kafka::PASSWORD, rabbitmq::PASSWORD);
    for (name, secret) in ALL {
        let login = STANDARD.encode(format!("forebay:{secret}"));
        let longer = STANDARD.encode(format!("some-user:{secret}@host"));
        for told in [secret, &*login, &*longer] {
            let leaks = found(format!("one\ntwo {{\"text\":\"{told}\"}}\nthree").as_bytes());
            let leak = Leak {
                secret: name,
                file: "some.stderr".into(),
                line: 2,
            };
            assert_eq!(leaks, [leak], "{told}");
        }
    }
    let (decoded, digits) = (
        b"x 0123456789abcdef0123456789abcdef",
        b"30313233343536373839616263646566",
    );
    assert_eq!(found(decoded).len(), 1);
    assert_eq!(found(&[&digits[..], digits].concat()).len(), 1);
    assert_eq!(found(PLANTED.as_bytes()).len(), 1);
}

/// What is said by a process of the binary really comes to where it is searched.
#[test]
fn what_the_binary_says_is_kept() {
    let word = "no-such-subcommand-e61c";
    let output = crate::support::program::forebay().arg(word).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains(word));
    let holds = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains(word));
    let mut files = fs::read_dir(output_dir()).unwrap().map(|entry| entry.unwrap().path());
    assert!(files.any(|path| holds(&path)), "not in {}", output_dir().display());
}
