//! The vectors of the contract, as the process tests read them.

/// The vectors of one folder, file by file.
pub(crate) fn vectors(folder: &str) -> Vec<(String, Vec<toml::Table>)> {
    let folder = format!("{}/../protocol-spec/vectors/{folder}", env!("CARGO_MANIFEST_DIR"));
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let mut table: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let vectors = table.remove("vector").unwrap().try_into().unwrap();
        (path.display().to_string(), vectors)
    };
    paths.map(read).collect()
}

/// A text of a vector, which has it.
pub(crate) fn text<'a>(vector: &'a toml::Table, key: &str) -> &'a str {
    vector[key].as_str().unwrap()
}

/// The bytes of a vector's `hex`: digits, white space and comments.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let code = text.lines().map(|line| line.split('#').next().unwrap());
    let digits: String = code.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}
