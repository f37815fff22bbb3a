//! Environment variables: the ones that steer what runs or where it talks, and the `vars` convention.
//!
//! The list below is the only one. A set may not lend these, because whoever writes a set would then
//! choose the program or the server that receives the credentials lent beside them.

use crate::limits;
use crate::names::{NameError, VarName};
use std::collections::HashSet;

/// Names that steer, exactly.
const STEERING: &[&str] = &[
    // The loader, the shell and the search for programs.
    "PATH",
    "SHELL",
    "IFS",
    "ENV",
    "BASH_ENV",
    "BASHOPTS",
    "SHELLOPTS",
    "PROMPT_COMMAND",
    "PS4",
    "ZDOTDIR",
    "CDPATH",
    "GLOBIGNORE",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "HOSTALIASES",
    "RESOLV_HOST_CONF",
    "LOCALDOMAIN",
    "HOME",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_CONFIG_DIRS",
    "XDG_DATA_HOME",
    "XDG_DATA_DIRS",
    // Editors, pagers and helpers that programs start.
    "EDITOR",
    "VISUAL",
    "PAGER",
    "MANPAGER",
    "BROWSER",
    "LESSOPEN",
    "LESSCLOSE",
    "SUDO_ASKPASS",
    "SSH_ASKPASS",
    "SSH_AUTH_SOCK",
    "SSH_SK_PROVIDER",
    "TERMINFO",
    "TERMCAP",
    "CC",
    "CXX",
    "LD",
    "AR",
    "MAKEFLAGS",
    "MFLAGS",
    // Interpreters and build tools.
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_EXTRA_CA_CERTS",
    "NODE_TLS_REJECT_UNAUTHORIZED",
    "BUN_OPTIONS",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "JAVA_HOME",
    "CLASSPATH",
    "MAVEN_OPTS",
    "GRADLE_OPTS",
    "ANT_OPTS",
    "PERLLIB",
    "PERL5DB",
    "RUBYOPT",
    "RUBYLIB",
    "GEM_HOME",
    "GEM_PATH",
    "BUNDLE_GEMFILE",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "LUA_INIT",
    "R_PROFILE",
    "R_PROFILE_USER",
    "GOFLAGS",
    "GOPROXY",
    "GONOSUMDB",
    "GONOSUMCHECK",
    "GOINSECURE",
    "GOPATH",
    "GOROOT",
    "GOTOOLCHAIN",
    "RUSTFLAGS",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "RUSTUP_DIST_SERVER",
    "RUSTUP_UPDATE_ROOT",
    "CARGO_HOME",
    "TOX_TESTENV_PASSENV",
    "VIRTUAL_ENV",
    // Where registries, clouds and vaults are.
    "TWINE_REPOSITORY",
    "TWINE_REPOSITORY_URL",
    "TWINE_CERT",
    "FLIT_INDEX_URL",
    "UV_PUBLISH_URL",
    "UV_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "POETRY_CONFIG_DIR",
    "HATCH_INDEX_REPO",
    "NPM_CONFIG_REGISTRY",
    "NPM_CONFIG_USERCONFIG",
    "NPM_CONFIG_GLOBALCONFIG",
    "YARN_RC_FILENAME",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE",
    "AWS_ENDPOINT_URL",
    "CLOUDSDK_CONFIG",
    "AZURE_CONFIG_DIR",
    "KUBECONFIG",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_CONTEXT",
    "DOCKER_TLS_VERIFY",
    "VAULT_ADDR",
    "VAULT_CACERT",
    "VAULT_CAPATH",
    "VAULT_SKIP_VERIFY",
    "BAO_ADDR",
    "OP_CONNECT_HOST",
    "GH_HOST",
    "GITLAB_HOST",
    "GITHUB_API_URL",
    "NETRC",
    "CURL_HOME",
    "WGETRC",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "OPENSSL_ENGINES",
    "REQUESTS_CA_BUNDLE",
    "GNUPGHOME",
    "SSLKEYLOGFILE",
    "KRB5_CONFIG",
    "PGSERVICEFILE",
    "PGSYSCONFDIR",
    "PGHOST",
    "PGHOSTADDR",
    "MYSQL_HOME",
];

/// Beginnings that steer.
const STEERING_PREFIXES: &[&str] = &[
    "KEYLOAN_",
    "LD_",
    "DYLD_",
    "GLIBC_",
    "PYTHON",
    "PERL5",
    "GIT_SSH",
    "GIT_CONFIG",
    "GIT_EXEC",
    "GIT_PROXY",
    "GIT_ASKPASS",
    "GIT_EDITOR",
    "GIT_PAGER",
    "GIT_EXTERNAL",
    "GIT_TEMPLATE",
    "GIT_SEQUENCE",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_SSL",
    "GIT_ALLOW_PROTOCOL",
    "BASH_FUNC_",
    "PIP_",
    "SSL_CERT_",
    "CARGO_REGISTRIES_",
    "CARGO_SOURCE_",
    "CARGO_TARGET_",
    "CARGO_BUILD_",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "AWS_ENDPOINT_URL_",
    "DOTNET_STARTUP",
    "CORECLR_",
    "COR_",
];

/// Endings that steer. `npm_config_*` is compared without case, as npm reads it.
const STEERING_SUFFIXES: &[&str] =
    &["_PROXY", "_CA_BUNDLE", "_INDEX_URL", "_REGISTRY_URL", "_REPOSITORY_URL"];

/// npm takes its settings from any of these; the token itself is named otherwise (`NPM_TOKEN`).
const NPM_PREFIX: &str = "NPM_CONFIG_";

/// Whether a variable decides which program runs or which server it talks to.
pub fn steers(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    STEERING.contains(&upper.as_str())
        || upper.starts_with(NPM_PREFIX)
        || STEERING_PREFIXES.iter().any(|prefix| upper.starts_with(prefix))
        || STEERING_SUFFIXES.iter().any(|suffix| upper.ends_with(suffix))
}

/// Variables that name a file or a directory of settings with credentials in it. They steer, and so no set
/// may give them a value; as a lent file they name what lies in the vault, which its owner stored there.
const CONFIGURATIONS: &[&str] = &[
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AZURE_CONFIG_DIR",
    "CLOUDSDK_CONFIG",
    "CURL_HOME",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "GIT_CONFIG_GLOBAL",
    "KRB5_CONFIG",
    "KUBECONFIG",
    "NETRC",
    "NPM_CONFIG_USERCONFIG",
    "PGSERVICEFILE",
    "PIP_CONFIG_FILE",
    "POETRY_CONFIG_DIR",
    "WGETRC",
];

/// Whether a variable may name a lent file. npm reads its own in any case.
pub fn may_name_a_file(name: &str) -> bool {
    !steers(name) || CONFIGURATIONS.contains(&name.to_ascii_uppercase().as_str())
}

/// Everyday variables of any session, or of any shell that was lent to: they steer, and every process has them, so a
/// warning that named them would name them always. They may not be lent and are not warned of.
pub fn is_everyday(name: &str) -> bool {
    matches!(
        name,
        "PATH"
            | "HOME"
            | "SHELL"
            | "TMPDIR"
            | "EDITOR"
            | "VISUAL"
            | "PAGER"
            | "BROWSER"
            | "LESSOPEN"
            | "LESSCLOSE"
            | "SSH_AUTH_SOCK"
            | "XDG_CONFIG_HOME"
            | "XDG_CONFIG_DIRS"
            | "XDG_DATA_HOME"
            | "XDG_DATA_DIRS"
            | "CARGO_HOME"
            | "RUSTUP_HOME"
            | "RUSTUP_TOOLCHAIN"
            | "JAVA_HOME"
            | "VIRTUAL_ENV"
            | "MANPAGER"
            | "KEYLOAN_LOAN"
            | "KEYLOAN_SHELL"
            | "KEYLOAN_VARS"
            | "KEYLOAN_PROMPT"
            | "KEYLOAN_TITLE"
            | "KEYLOAN_ANNOUNCE"
            | "TERMINFO"
    )
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VarsError {
    #[error("line {line}: there is no '=' (NAME=value is wanted)")]
    NoEquals { line: usize },
    #[error("line {line}: {cause}")]
    Name { line: usize, cause: NameError },
    #[error("line {line}: more than {} variables, which is what one loan holds", limits::VALUES)]
    Many { line: usize },
    #[error("line {line}: {name} is set twice")]
    Twice { line: usize, name: VarName },
    #[error("line {line}: {name} holds a NUL, which no environment can carry")]
    Nul { line: usize, name: VarName },
}

/// Reads the `vars` convention: lines `NAME=value`, stripped; blank lines and lines beginning with `#`
/// skipped; the value is everything after the first `=`, used exactly. Gives names with their values. A text may be
/// somebody else's: nothing is read behind what one loan can hold.
pub fn parse_vars(text: &[u8]) -> Result<Vec<(VarName, &[u8])>, VarsError> {
    let mut variables: Vec<(VarName, &[u8])> = Vec::new();
    let mut names = HashSet::new();
    for (line, content) in (1_usize..).zip(text.split(|byte| *byte == b'\n')) {
        let content = content.trim_ascii();
        if content.is_empty() || content.starts_with(b"#") {
            continue;
        }
        if variables.len() >= limits::VALUES {
            return Err(VarsError::Many { line });
        }
        let equals = content.iter().position(|byte| *byte == b'=').ok_or(VarsError::NoEquals { line })?;
        let (name, rest) = content.split_at(equals);
        let value = rest.get(1..).unwrap_or_default();
        let name = str::from_utf8(name)
            .map_err(|_| NameError::Variable)
            .and_then(|name| VarName::parse(name.trim_end()))
            .map_err(|cause| VarsError::Name { line, cause })?;
        if !names.insert(name.as_str().to_owned()) {
            return Err(VarsError::Twice { line, name });
        }
        if value.contains(&0) {
            return Err(VarsError::Nul { line, name });
        }
        variables.push((name, value));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_choose_program_or_server_steer() {
        for name in [
            "LD_PRELOAD",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "NODE_OPTIONS",
            "BASH_ENV",
            "GIT_SSH_COMMAND",
            "HTTPS_PROXY",
            "https_proxy",
            "all_proxy",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "SSL_CERT_FILE",
            "TWINE_REPOSITORY_URL",
            "PIP_INDEX_URL",
            "npm_config_registry",
            "PATH",
            "BASH_FUNC_ls%%",
        ] {
            assert!(steers(name), "{name}");
        }
        for name in
            ["TWINE_PASSWORD", "TWINE_USERNAME", "NPM_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "A"]
        {
            assert!(!steers(name), "{name}");
        }
    }

    #[test]
    fn a_lent_file_may_be_settings_but_nothing_that_is_run() {
        for name in ["KUBECONFIG", "npm_config_userconfig", "DOCKER_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS"]
        {
            assert!(may_name_a_file(name), "{name}");
        }
        for name in ["LD_PRELOAD", "BASH_ENV", "PYTHONSTARTUP", "GIT_SSH", "SSL_CERT_FILE", "HOME"] {
            assert!(!may_name_a_file(name), "{name}");
        }
    }

    #[test]
    fn the_vars_convention_is_read_exactly() {
        let text = b"# tokens\n\n  A=1 \r\nB==x y\nC=\"quoted\" # kept\nD=\n";
        let read = parse_vars(text).unwrap();
        let read: Vec<(&str, &[u8])> = read.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let expected: [(&str, &[u8]); 4] =
            [("A", b"1"), ("B", b"=x y"), ("C", b"\"quoted\" # kept"), ("D", b"")];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_line_that_cannot_be_a_variable_is_named_by_its_number_only() {
        assert_eq!(parse_vars(b"A=1\nsecret"), Err(VarsError::NoEquals { line: 2 }));
        let name = VarName::parse("A").unwrap();
        assert_eq!(parse_vars(b"A=1\nA=2"), Err(VarsError::Twice { line: 2, name: name.clone() }));
        assert_eq!(parse_vars(b"A=a\0"), Err(VarsError::Nul { line: 1, name }));
        assert!(matches!(parse_vars(b"a-b=1"), Err(VarsError::Name { line: 1, .. })));
    }

    #[test]
    fn a_text_is_read_no_further_than_one_loan_reaches() {
        let text = |names: usize| (0..names).map(|name| format!("A{name}=1\n")).collect::<Vec<_>>().concat();
        assert_eq!(parse_vars(text(limits::VALUES).as_bytes()).unwrap().len(), limits::VALUES);
        let long = format!("{}no variable", text(120_000));
        assert_eq!(parse_vars(long.as_bytes()), Err(VarsError::Many { line: limits::VALUES + 1 }));
    }
}
