//! Requests that two servers could read differently.

/// Each with its name: a request for `path` with this signature's header line and a body, framed in a way that no
/// server may take, and behind it another request, which must not be seen as one.
pub fn requests(path: &str, signature: &str, body: &str, smuggled: &str) -> Vec<(&'static str, String)> {
    let length = format!("content-length: {}", body.len());
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let chunked = "transfer-encoding: chunked";
    let framed: Vec<(&'static str, Vec<&str>, String)> = vec![
        ("length and chunked", vec![&length, chunked], chunk.clone()),
        ("chunked and length", vec![chunked, &length], chunk.clone()),
        ("two lengths", vec![&length, "content-length: 1"], body.into()),
        ("two equal lengths", vec![&length, &length], body.into()),
        ("a list of lengths", vec!["content-length: 5, 5"], body.into()),
        ("a length with a sign", vec!["content-length: +5"], body.into()),
        ("a negative length", vec!["content-length: -5"], body.into()),
        ("a hexadecimal length", vec!["content-length: 0x5"], body.into()),
        (
            "an overflowing length",
            vec!["content-length: 18446744073709551621"],
            body.into(),
        ),
        ("identity", vec!["transfer-encoding: identity", &length], body.into()),
        ("an unknown coding", vec!["transfer-encoding: xchunked"], chunk.clone()),
        ("chunked twice", vec![chunked, chunked], chunk.clone()),
        (
            "chunked before identity",
            vec!["transfer-encoding: chunked, identity"],
            chunk.clone(),
        ),
        ("a vertical tab", vec!["transfer-encoding: \u{b}chunked"], chunk.clone()),
        (
            "a space before the colon",
            vec!["transfer-encoding : chunked", &length],
            chunk.clone(),
        ),
        (
            "a folded line",
            vec![&length, "x-folded: a\r\n transfer-encoding: chunked"],
            chunk.clone(),
        ),
        (
            "a bare carriage return",
            vec![&length, "x-bare: a\rtransfer-encoding: chunked"],
            chunk.clone(),
        ),
        ("a null byte", vec![&length, "x-null: a\0b"], body.into()),
        ("two hosts", vec![&length, "host: other"], body.into()),
        ("a chunk size with a prefix", vec![chunked], format!("0x{chunk}")),
        ("a chunk size with a sign", vec![chunked], format!("+{chunk}")),
        ("a chunk size of two words", vec![chunked], format!("5 {chunk}")),
        (
            "an overflowing chunk size",
            vec![chunked],
            format!("1{}{chunk}", "0".repeat(16)),
        ),
        (
            "a chunk size ended by a bare line feed",
            vec![chunked],
            chunk.replacen("\r\n", "\n", 1),
        ),
        ("a chunk longer than its size", vec![chunked], format!("1\r\n{chunk}")),
        (
            "a control character in an extension",
            vec![chunked],
            chunk.replacen("\r\n", ";a\u{1}\r\n", 1),
        ),
    ];
    let starts = [
        ("no host", format!("POST {path} HTTP/1.1")),
        (
            "chunked in HTTP/1.0",
            format!("POST {path} HTTP/1.0\r\nhost: forebay\r\n{chunked}"),
        ),
        ("an unknown version", format!("POST {path} HTTP/1.2\r\nhost: forebay")),
        ("HTTP/2", "PRI * HTTP/2.0".to_owned()),
    ];
    let framed = framed.into_iter().map(|(name, lines, content)| {
        let lines = lines.join("\r\n");
        let head = format!("POST {path} HTTP/1.1\r\nhost: forebay\r\n{signature}\r\n{lines}\r\n\r\n");
        (name, format!("{head}{content}{smuggled}"))
    });
    let starts = starts.iter().map(|(name, start)| {
        (
            *name,
            format!("{start}\r\n{signature}\r\n{length}\r\n\r\n{body}{smuggled}"),
        )
    });
    framed.chain(starts).collect()
}
