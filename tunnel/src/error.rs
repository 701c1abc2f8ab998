//! How an error is printed: on one line, with its causes.

/// An error and all its causes on one line. A cause that only repeats its effect's text is left out.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line.replace('\n', ", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_each_cause_once_and_on_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read\nthe file")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("permission denied")]
        struct Inner;
        assert_eq!(chain(&Outer(Inner)), "cannot read, the file: permission denied");
    }
}
