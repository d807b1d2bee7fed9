// Which builds of the engine this CPU can run.
#pragma once

#include <string>
#include <vector>

#include "plan.h"
#include "scoring.h"

namespace wz {

// Best first: "avx512", "avx2", "plain". Empty on an x86 CPU without FMA, where a fused
// multiply-add would have to be emulated in software: PyTorch is faster there.
std::vector<std::string> usable_paths();

// The factory of a path, or null where this build or CPU has none.
Make factory(const std::string& path);

// The scoring function of a path, or null likewise.
Score scorer(const std::string& path);

}  // namespace wz
