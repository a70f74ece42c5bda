//! What the documents must name, and what they name that must exist.

use super::source::{Source, is_name, words};

/// How long a line of a comment or document may be.
const COLUMNS_MAX: usize = 120;

/// The metrics that are registered: by their whole names, or by those that telemetry puts the prefix before.
pub fn metrics(sources: &[Source]) -> Vec<String> {
    const PREFIX: &str = "forebay_";
    let calls = ["counter", "counters", "gauge", "gauges", "histogram", "histograms"];
    let whole = first_arguments(sources, &["new"]);
    let whole = whole.into_iter().filter(|name| name.starts_with(PREFIX));
    let names = first_arguments(sources, &calls).into_iter();
    sorted(whole.chain(names.map(|name| {
        let short = name.strip_prefix(PREFIX).unwrap_or(&name);
        format!("{PREFIX}{short}")
    })))
}

/// The labels that the failures of a broker carry: texts that begin so.
pub fn labels(sources: &[Source], prefix: &str) -> Vec<String> {
    sorted(sources.iter().flat_map(|source| {
        literals(&source.code_and_literals)
            .filter(|literal| literal.starts_with(prefix))
            .filter(|literal| literal.chars().all(is_name))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    }))
}

/// The keys that the configuration takes.
pub fn keys(sources: &[Source]) -> Vec<String> {
    let calls = ["take", "take_or", "require", "table", "optional_table", "tables"];
    sorted(first_arguments(sources, &calls))
}

/// The fields of the lines that are logged.
pub fn log_fields(sources: &[Source]) -> Vec<String> {
    let mut fields = Vec::new();
    for source in sources {
        for level in ["error", "warn", "info", "debug", "trace"] {
            let call = format!("tracing::{level}!(");
            for (at, _) in source.code.match_indices(&call) {
                fields.extend(fields_of(&source.code[at + call.len()..]));
            }
        }
    }
    sorted(fields)
}

/// The fields among the arguments that begin here: what stands before the message, by the names that they get.
fn fields_of(arguments: &str) -> Vec<String> {
    let (mut fields, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in arguments.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => depth -= 1,
            ',' | ')' if depth == 0 => {
                let argument = arguments[start..at].trim();
                if argument.starts_with('"') || argument.is_empty() {
                    break;
                }
                let name = argument.split('=').next().unwrap_or_default();
                fields.push(name.trim().trim_start_matches(['%', '?']).to_owned());
                start = at + 1;
            }
            _ => {}
        }
    }
    fields
}

/// The names in the first column of a document's tables, in backticks.
pub fn first_column(text: &str) -> Vec<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    sorted(cells.flat_map(|cell| {
        let names = cell.split(',').map(|name| name.trim().trim_matches('`').to_owned());
        names.collect::<Vec<_>>()
    }))
}

/// The literals that are the first argument of one of `calls`.
fn first_arguments(sources: &[Source], calls: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for call in calls {
            for at in source.words(call) {
                let after = source.code_and_literals[at + call.len()..].strip_prefix('(');
                let literal = after.and_then(|after| after.trim_start().strip_prefix('"'));
                let name = literal.and_then(|literal| literal.split('"').next());
                found.extend(name.filter(|name| !name.is_empty()).map(str::to_owned));
            }
        }
    }
    found
}

fn literals(code: &str) -> impl Iterator<Item = &str> {
    code.lines().flat_map(|line| line.split('"').skip(1).step_by(2))
}

fn sorted(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort();
    names.dedup();
    names
}

/// The names that `text` does not have as words.
pub fn missing(names: &[String], text: &str) -> Vec<String> {
    let absent = |name: &&String| words(text, name).next().is_none();
    names.iter().filter(absent).cloned().collect()
}

/// The metrics of ours that `text` names and that are not among `names`.
pub fn unknown_metrics(names: &[String], text: &str) -> Vec<String> {
    let all = text.split(|c| !is_name(c)).filter(|word| word.starts_with("forebay_"));
    let series = |word: &str| {
        ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| word.strip_suffix(end))
            .map(str::to_owned)
    };
    let known = |word: &str| names.iter().any(|name| name == word);
    sorted(
        all.filter(|word| !known(word) && !series(word).is_some_and(|name| known(&name)))
            .map(str::to_owned),
    )
}

/// The links of a document to files that are not there.
pub fn broken_links(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter_map(|target| target.split('#').next());
    files
        .filter(|target| !target.is_empty() && !target.contains(':'))
        .filter(|target| !exists(&format!("{dir}/{target}")))
        .map(|target| format!("{path}: no file {target}"))
        .collect()
}

/// Lines of comments and documents that are too long to be seen side by side. What cannot be broken, or is shown as it
/// is, may be.
pub fn unwrapped(path: &str, text: &str) -> Vec<String> {
    let is_document = path.ends_with(".md");
    let mut is_shown = false;
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let line = line.trim_start();
        let content = match is_document {
            true => line,
            false => line.strip_prefix("//").unwrap_or_default(),
        };
        is_shown ^= content.trim_start_matches(['/', '!', ' ']).starts_with("```");
        let stays = content.starts_with(['|', '#', '<']) || content.contains("://");
        !content.is_empty() && !is_shown && !stays
    });
    lines
        .filter(|(_, line)| line.chars().count() > COLUMNS_MAX)
        .map(|(number, _)| format!("{path}:{}", number + 1))
        .collect()
}

/// The recipes of a justfile.
pub fn recipes(justfile: &str) -> Vec<String> {
    let heads = justfile
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    heads
        .filter_map(|line| line.split_once(':').map(|(head, _)| head))
        .filter_map(|head| head.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// The commands of a document's shell blocks that name a script, recipe, subcommand or option that is not there.
pub fn wrong_commands(
    path: &str,
    text: &str,
    recipes: &[String],
    exists: impl Fn(&str) -> bool,
    help: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut findings = Vec::new();
    for command in shell_commands(text) {
        let wrong = wrong_command(&command, recipes, &exists, &help);
        findings.extend(wrong.map(|wrong| format!("{path}: {command}: {wrong}")));
    }
    findings
}

fn wrong_command(
    command: &str,
    recipes: &[String],
    exists: &impl Fn(&str) -> bool,
    help: &impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let assignments = words.iter().take_while(|word| word.contains('=')).count();
    let (program, arguments) = words[assignments..].split_first()?;
    match *program {
        "just" => {
            let recipe = arguments.iter().find(|argument| !argument.starts_with('-'))?;
            let known = recipes.iter().any(|known| known == recipe);
            (!known).then(|| format!("no recipe {recipe}"))
        }
        "forebay" | "target/release/forebay" => wrong_arguments(arguments, help),
        "cargo" if arguments.first() == Some(&"run") => {
            let at = arguments.iter().position(|argument| *argument == "--")?;
            wrong_arguments(&arguments[at + 1..], help)
        }
        script if script.starts_with("tests/") || script.starts_with(".ci/") || script.starts_with("benches/") => {
            (!exists(script)).then(|| format!("no file {script}"))
        }
        _ => None,
    }
}

fn wrong_arguments(arguments: &[&str], help: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let (subcommand, options) = arguments.split_first()?;
    if subcommand.starts_with('-') {
        return None;
    }
    let Some(help) = help(subcommand) else {
        return Some(format!("no subcommand {subcommand}"));
    };
    options
        .iter()
        .filter(|option| option.starts_with("--"))
        .map(|option| option.split('=').next().expect("a split has a part"))
        .find(|option| {
            !help
                .split(|c: char| !(is_name(c) || c == '-'))
                .any(|word| word == *option)
        })
        .map(|option| format!("no option {option}"))
}

/// The lines of a document's shell blocks, without comments and prompts; a line that ends in `\` goes on in the next.
fn shell_commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut within = None;
    let mut unfinished = String::new();
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            within = match within {
                None => Some(matches!(language.trim(), "sh" | "bash" | "shell" | "console")),
                Some(_) => None,
            };
        } else if within == Some(true) {
            let line = line.trim().trim_start_matches("$ ");
            let line = line.split(" #").next().unwrap_or_default().trim();
            match line.strip_suffix('\\') {
                Some(part) => unfinished.push_str(part),
                None if line.starts_with('#') => {}
                None => commands.push(std::mem::take(&mut unfinished) + line),
            }
        }
    }
    commands.retain(|command| !command.is_empty());
    commands
}
