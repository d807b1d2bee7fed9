#include "dispatch.h"

namespace wz {

Engine* make_plain(const Plan&);
void score_plain(const Scoring&);
#if defined(WZ_X86)
Engine* make_avx2(const Plan&);
Engine* make_avx512(const Plan&);
void score_avx2(const Scoring&);
void score_avx512(const Scoring&);
#endif

std::vector<std::string> usable_paths() {
  std::vector<std::string> paths;
#if defined(WZ_X86)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("fma") || !__builtin_cpu_supports("avx2")) return paths;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw"))
    paths.push_back("avx512");
  paths.push_back("avx2");
#endif
  paths.push_back("plain");
  return paths;
}

namespace {

struct Build {
  Make make = nullptr;
  Score score = nullptr;
};

Build build_of(const std::string& path) {
  for (const std::string& usable : usable_paths()) {
    if (usable != path) continue;
#if defined(WZ_X86)
    if (path == "avx512") return {make_avx512, score_avx512};
    if (path == "avx2") return {make_avx2, score_avx2};
#endif
    return {make_plain, score_plain};
  }
  return {};
}

}  // namespace

Make factory(const std::string& path) { return build_of(path).make; }

Score scorer(const std::string& path) { return build_of(path).score; }

}  // namespace wz
