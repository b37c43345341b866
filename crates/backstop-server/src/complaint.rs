//! Trouble that is met again and again: it is said when it begins or becomes another, and once that it is over.

use parking_lot::Mutex;

/// What was said last.
#[derive(Debug, Default)]
pub(crate) struct Complaint(Mutex<Option<String>>);

impl Complaint {
    /// Whether this is to be said now.
    pub(crate) fn is_news(&self, trouble: &impl ToString) -> bool {
        let trouble = Some(trouble.to_string());
        let mut said = self.0.lock();
        let is_news = *said != trouble;
        *said = trouble;
        is_news
    }

    /// Whether there was trouble until now: that it is over is to be said.
    pub(crate) fn ends(&self) -> bool {
        self.0.lock().take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_news_once_until_it_changes_or_ends() {
        let complaint = Complaint::default();
        assert!(!complaint.ends());
        assert!(complaint.is_news(&"broken"));
        assert!(!complaint.is_news(&"broken"));
        assert!(complaint.is_news(&"gone"));
        assert!(complaint.ends());
        assert!(!complaint.ends());
        assert!(complaint.is_news(&"gone"));
    }
}
