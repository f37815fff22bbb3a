//! Approver programs in a human's place. Doubles: each answers by itself, at once.

pub const ALLOW: &str = "#!/bin/sh\ncat >/dev/null\necho '{\"decision\":\"allow\",\"scope\":\"once\"}'\n";
pub const DENY: &str = "#!/bin/sh\ncat >/dev/null\necho '{\"decision\":\"deny\"}'\n";
pub const GARBAGE: &str = "#!/bin/sh\ncat >/dev/null\necho yes\n";
/// Says yes and then fails: only a clear yes is one.
pub const CRASH: &str = "#!/bin/sh\ncat >/dev/null\necho '{\"decision\":\"allow\"}'\nexit 1\n";
pub const HANG: &str = "#!/bin/sh\nexec sleep 1000\n";

/// Allows, and keeps the question in a file.
pub fn recording(file: &std::path::Path) -> String {
    format!("#!/bin/sh\ncat >{}\necho '{{\"decision\":\"allow\"}}'\n", file.display())
}

/// Allows, and keeps every question, one a line. [`questions`] reads them.
pub fn keeping(file: &std::path::Path) -> String {
    format!("#!/bin/sh\n{{ cat; echo; }} >>{}\necho '{{\"decision\":\"allow\"}}'\n", file.display())
}

/// Allows once a file is there.
pub fn patient(go: &std::path::Path) -> String {
    let go = go.display();
    format!("#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.05; done\necho '{{\"decision\":\"allow\"}}'\n")
}

/// Allows, and says that the yes covers this much; keeps every question.
pub fn covering(file: &std::path::Path, scope: &str) -> String {
    keeping(file).replace("\"allow\"", &format!("\"allow\",\"scope\":\"{scope}\""))
}

/// Declines, and keeps every question.
pub fn declining(file: &std::path::Path) -> String {
    keeping(file).replace("allow", "deny")
}

/// The questions that were kept.
pub fn questions(file: &std::path::Path) -> Vec<Question> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| Question(serde_json::from_str(line).unwrap())).collect()
}

/// One question as an approver program reads it.
#[derive(Debug)]
pub struct Question(pub serde_json::Value);

impl Question {
    pub fn title(&self) -> &str {
        self.0["title"].as_str().unwrap()
    }

    /// The first line with that label, and how certain it is.
    pub fn line(&self, label: &str) -> Option<(&str, &str)> {
        let lines = self.0["lines"].as_array().unwrap();
        let line = lines.iter().find(|line| line["label"] == label)?;
        Some((line["text"].as_str().unwrap(), line["certainty"].as_str().unwrap()))
    }

    /// What a yes to it may cover.
    pub fn scopes(&self) -> Vec<&str> {
        self.0["scopes"].as_array().unwrap().iter().map(|scope| scope.as_str().unwrap()).collect()
    }

    /// Fails the test unless there is such a line.
    #[track_caller]
    pub fn says(&self, label: &str, text: &str, certainty: &str) {
        assert_eq!(self.line(label), Some((text, certainty)), "{}", self.0);
    }
}
