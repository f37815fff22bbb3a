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
