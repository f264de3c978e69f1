//! The elimination tree of a hierarchy: what lies above each node.

/// No node: the parent of a root.
pub(super) const NONE: u32 = u32::MAX;

/// How deep each node is, and where to jump to look for an ancestor (Myers 1983: two steps for each bit of the depth).
pub(super) struct Tree {
    parent: Vec<u32>,
    /// 0 at a root.
    depth: Vec<u32>,
    jump: Vec<u32>,
}

impl Tree {
    /// Every parent has a larger number than its children; [`NONE`] at roots.
    pub(super) fn new(parent: Vec<u32>) -> Self {
        let mut tree = Self { depth: vec![0; parent.len()], jump: vec![0; parent.len()], parent };
        for node in (0..tree.parent.len()).rev() {
            let above = tree.parent[node];
            if above == NONE {
                tree.jump[node] = node as u32;
                continue;
            }
            tree.depth[node] = tree.depth[above as usize] + 1;
            let next = tree.jump[above as usize];
            let after = tree.jump[next as usize];
            let depth = |node: u32| tree.depth[node as usize];
            // As far as from `next` to `after`: jumps of one length join to one twice as long.
            let joins = depth(above) - depth(next) == depth(next) - depth(after);
            tree.jump[node] = if joins { after } else { above };
        }
        tree
    }

    #[inline]
    pub(super) fn depth(&self, node: u32) -> usize {
        self.depth[node as usize] as usize
    }

    #[inline]
    pub(super) fn parent(&self, node: u32) -> u32 {
        self.parent[node as usize]
    }

    /// The depth of the lowest common ancestor of `node` and the node whose ancestors, itself included, are `path` by depth; `None`
    /// where they have different roots.
    #[inline]
    pub(super) fn common_depth(&self, path: &[u32], mut node: u32) -> Option<usize> {
        let on_path = |node: u32| path.get(self.depth(node)) == Some(&node);
        while !on_path(node) {
            let next = self.jump[node as usize];
            node = if on_path(next) { self.parent[node as usize] } else { next };
            // A root that is not on the path jumps to itself.
            if self.parent(node) == NONE && !on_path(node) {
                return None;
            }
        }
        Some(self.depth(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_lowest_common_ancestor_of_all_pairs_of_a_forest() {
        // Each node's parent is some steps on; two roots.
        let count = 300_u32;
        let parent: Vec<u32> = (0..count)
            .map(|node| {
                if node >= count - 2 {
                    NONE
                } else {
                    (node + 1 + node.wrapping_mul(7919) % 5).min(count - 1 - node % 2)
                }
            })
            .collect();
        let tree = Tree::new(parent.clone());
        let up = |node: u32| {
            std::iter::successors(Some(node), |node| Some(parent[*node as usize]).filter(|up| *up != NONE))
        };
        for one in 0..count {
            let mut path: Vec<u32> = up(one).collect();
            path.reverse();
            assert_eq!(tree.depth(one), path.len() - 1);
            for other in 0..count {
                let common = up(other).find(|node| path.contains(node));
                assert_eq!(
                    tree.common_depth(&path, other),
                    common.map(|node| tree.depth(node)),
                    "{one} {other}"
                );
            }
        }
    }
}
