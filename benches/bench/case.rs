//! One thing that is measured, for us and for those we are compared with.

/// The subject that is ours.
pub(crate) const OURS: &str = "bastiond";

/// A case with everything that was measured for it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// `part/what`.
    pub(crate) name: &'static str,
    /// In a person's words.
    pub(crate) title: &'static str,
    /// Of the values.
    pub(crate) unit: &'static str,
    /// Which direction is good.
    pub(crate) better: Better,
    /// In the order in which they were measured in each round. One is [`OURS`].
    pub(crate) subjects: Vec<Subject>,
    /// What we promise of our own value; a [`Bar`] is what we promise of a ratio.
    pub(crate) promise: Option<Promise>,
}

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// Who was measured, and what came out, a value a round; not a number where the subject failed.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) values: Vec<f64>,
    pub(crate) bar: Option<Bar>,
}

/// A bar that our median has to take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Promise {
    Below(f64),
    AtMost(f64),
}

/// What our value over that subject's has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

/// The same rules measured twice differ by up to as much on a shared machine.
pub(crate) const TOLERANCE: f64 = 0.03;

impl Case {
    /// A case about nobody but us.
    pub(crate) fn alone(
        name: &'static str,
        title: &'static str,
        unit: &'static str,
        promise: Option<Promise>,
        values: Vec<f64>,
    ) -> Self {
        let subjects = vec![Subject { name: OURS.to_owned(), values, bar: None }];
        Self { name, title, unit, better: Better::Lower, subjects, promise }
    }

    pub(crate) fn ours(&self) -> &Subject {
        self.subject(OURS)
    }

    pub(crate) fn subject(&self, name: &str) -> &Subject {
        self.subjects.iter().find(|subject| subject.name == name).expect("every case has its subjects")
    }

    pub(crate) fn others(&self) -> impl Iterator<Item = &Subject> {
        self.subjects.iter().filter(|subject| subject.name != OURS)
    }

    /// Ours over that subject's. Both were measured within seconds in each round, so the median of the rounds' ratios
    /// wavers less than the ratio of the medians. Not a number if either failed in every round.
    pub(crate) fn ratio_to(&self, other: &Subject) -> f64 {
        median(self.ours().values.iter().zip(&other.values).map(|(ours, theirs)| ours / theirs))
    }

    /// Whether everything that was promised is kept, if there is a promise.
    pub(crate) fn is_kept(&self) -> Option<bool> {
        let own = self.promise.map(|promise| promise.is_kept(self.ours().median()));
        let bars = self.others().filter_map(|other| Some(self.takes(other.bar?, other)));
        own.into_iter().chain(bars).reduce(|one, other| one && other)
    }

    fn takes(&self, bar: Bar, other: &Subject) -> bool {
        // Who cannot do it at all is no rival.
        let unrivalled = !other.has_values() && self.ours().has_values();
        unrivalled || bar.is_taken(self.ratio_to(other))
    }
}

impl Promise {
    fn is_kept(self, median: f64) -> bool {
        match self {
            Self::Below(bar) => median < bar,
            Self::AtMost(bar) => median <= bar,
        }
    }
}

impl Bar {
    fn is_taken(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bar) => ratio >= bar,
            Self::AtMost(bar) => ratio <= bar,
        }
    }
}

impl Subject {
    pub(crate) fn new(name: impl Into<String>, bar: Option<Bar>) -> Self {
        Self { name: name.into(), values: Vec::new(), bar }
    }

    pub(crate) fn median(&self) -> f64 {
        median(self.values.iter().copied())
    }

    pub(crate) fn least(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn greatest(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// In how many rounds it did what was asked.
    pub(crate) fn runs(&self) -> usize {
        self.values.iter().filter(|value| !value.is_nan()).count()
    }

    pub(crate) fn has_values(&self) -> bool {
        self.runs() > 0
    }
}

/// Of those that are numbers. Not a number if there are none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
