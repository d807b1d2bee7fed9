// Where the outputs of layers and their gradients lie.
#pragma once

#include "node.h"

namespace {

// Whether the gradient of such a layer may be worked out where that of its output lies. An add's own gradient has a
// second reader, and stays.
inline bool in_place(Op op) { return op >= Op::Relu && op < Op::Add; }
// Whether convolution l takes its gradient through the ReLU before it, to where that one's output was.
inline bool gates(const std::vector<Node>& nodes, int l) {
  return l >= 2 && nodes[l].layer.op == Op::Conv && nodes[l - 1].done_before && !nodes[l - 1].forked &&
         nodes[l - 2].layer.op == Op::Conv;
}
// Whether the gradient of a ReLU done by a convolution has a place of its own: its reader needs the output longer.
inline bool gated_apart(const std::vector<Node>& nodes, int l) {
  return nodes[l].done_before && nodes[l - 1].layer.op == Op::Conv && !(l + 1 < (int)nodes.size() && gates(nodes, l + 1));
}

// Geometries of outputs and gradients, and which share a buffer. `shared`: as closely as their readers
// allow. Returns that of the input.
inline Geometry lay_out(std::vector<Node>& nodes, int first_param, bool shared) {
  // Halos of activations come from the convolution that reads them, through layers that may hand
  // their input on unchanged.
  const int n = (int)nodes.size();
  int halo = 0;
  for (int l = n - 1; l >= 0; --l) {
    Node& node = nodes[l];
    node.out = Geometry(node.layer.out, halo);
    if (node.layer.op == Op::Conv) halo = node.layer.pad;
    else if (!node.hands_on()) halo = 0;
    node.in = Geometry(node.layer.in, halo);
  }
  // Halos of gradients come from the convolution that made the value, through layers that work in place.
  for (int l = 0; l < n; ++l) {
    Node& node = nodes[l];
    node.g_alias = -1, node.g_in_y = false;
    const bool here = node.done_before ? !gated_apart(nodes, l) : node.layer.op == Op::Dropout || in_place(node.layer.op);
    const bool same = l > first_param && (here || (node.layer.op == Op::Flatten && nodes[l - 1].grad.contiguous()));
    if (same) {
      node.g_alias = l - 1;
      node.grad = node.layer.op == Op::Flatten ? Geometry(node.layer.out, 0) : nodes[l - 1].grad;
    } else {
      const bool onward = node.layer.op == Op::Conv && l > first_param;
      int around = !onward ? 0 : shared ? gradient_columns(node.layer) : gradient_halo(node.layer);
      int rows_around = shared ? 0 : around;
      if (l >= first_param && l + 1 < n && !node.pooled && outlives_output(nodes[l].layer, nodes[l + 1].layer)) {
        around = std::max(around, node.out.halo), rows_around = std::max(rows_around, node.out.halo_rows);
        node.out = Geometry(node.layer.out, around, rows_around);
        for (int k = l + 1; k < n; ++k) {
          nodes[k].in = node.out;
          if (!nodes[k].hands_on()) break;
          nodes[k].out = node.out;
        }
        node.g_in_y = true;
      }
      node.grad = Geometry(node.layer.out, around, rows_around);
    }
  }
  return nodes[0].in;
}

}  // namespace
