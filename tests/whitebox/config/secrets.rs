//! Where secrets come from, and where they never show.

use super::{Dir, LEAST, SECRET, load, load_named, with};

#[test]
fn a_secret_is_in_no_message_and_no_debug_text() {
    let broken = [
        (
            "forebay.toml",
            format!("[endpoints.a]\nsecrets = [\"base64:{SECRET}\" oops\n"),
        ),
        (
            "forebay.yaml",
            format!("endpoints:\n  a:\n    secrets: [\"base64:{SECRET}\" \"oops\"\n  b: }}"),
        ),
        // All of it is one text; a key is a list.
        (
            "forebay.yaml",
            format!("[endpoints.a]\nsecrets = [\"base64:{SECRET}\"]\n"),
        ),
        ("forebay.yaml", format!("oops\nsecrets = [\"base64:{SECRET}\"]\n")),
        ("forebay.yaml", format!("? [\"base64:{SECRET}\"]\n: secrets\n")),
        (
            "forebay.toml",
            with(&format!(
                "[endpoints.b]\npath = \"/b\"\nsecrets = [\"base64:{SECRET}!\"]"
            )),
        ),
        (
            "forebay.toml",
            with(&format!("[endpoints.b]\npath = \"/b\"\nsecrets = [\"{SECRET}\"]")),
        ),
        (
            "forebay.toml",
            with(&format!("[endpoints.b]\npath = \"/b\"\nsecrets = \"base64:{SECRET}\"")),
        ),
        (
            "forebay.toml",
            LEAST.to_owned() + &format!("properties = {{ \"sasl.password\" = [\"{SECRET}\"] }}"),
        ),
    ];
    for (name, text) in broken {
        let told = load_named(name, &text, &[]).expect_err(&text).to_string();
        assert!(!told.contains("MDEyMzQ1"), "{told}");
    }
    let fine = LEAST.to_owned() + &format!("properties = {{ \"sasl.password\" = \"{SECRET}\" }}");
    let debug = format!("{:?}", load(&fine, &[]).unwrap());
    assert!(
        debug.contains("sasl.password") && !debug.contains("MDEyMzQ1"),
        "{debug}"
    );
}

#[test]
fn secrets_come_from_the_environment_a_file_or_the_text() {
    let dir = Dir::new();
    let secret = dir.file("secret", &format!("{SECRET}\n"));
    let text = format!(
        "[endpoints.b]\npath = \"/b\"\nsecrets = [\"env:B\", \"file:{}\", \"base64:{SECRET}\"]\n{LEAST}",
        secret.display()
    );
    let config = load(&text, &[("B", SECRET)]).unwrap();
    assert_eq!(config.endpoints[1].secrets.len(), 3);
    assert!(config.endpoints[1].secrets[1].read().is_ok());
}
