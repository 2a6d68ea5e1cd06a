//! What changed since the rules last looked: a rule finds nothing new where nothing near has changed.

use super::Graph;
use egg::Id;

/// Classes that changed, and how near to one every class is.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Since distances were measured.
    noted: Vec<Id>,
    /// By class, the fewest operations on the way from it to one that had changed; `None` until they are measured.
    distances: Option<Vec<usize>>,
}

impl Changes {
    /// Notes that a class is new, has become one with another, or that more is known of it.
    pub fn note(&mut self, class: Id) {
        self.noted.push(class);
    }

    /// Whether something changed in a class or in what it is made of, at most `steps` operations away. Everything has, until
    /// distances are measured.
    pub fn is_near(&self, class: Id, steps: usize) -> bool {
        self.distances.as_ref().is_none_or(|distances| distances[usize::from(class)] <= steps)
    }
}

/// Measures how near to a change every class is, and begins to note changes anew.
pub fn measure(graph: &mut Graph) {
    let mut distances = vec![usize::MAX; graph.nodes().len()];
    let mut reached = std::mem::take(&mut graph.analysis.changes.noted);
    for distance in 0.. {
        let mut next = Vec::new();
        for class in reached {
            let class = graph.find(class);
            if distances[usize::from(class)] == usize::MAX {
                distances[usize::from(class)] = distance;
                next.extend(graph[class].parents());
            }
        }
        if next.is_empty() {
            break;
        }
        reached = next;
    }
    graph.analysis.changes.distances = Some(distances);
}
