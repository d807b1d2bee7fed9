#include "dispatch.h"

namespace wz {

Engine* make_plain(const Plan&);
#if defined(WZ_X86)
Engine* make_avx2(const Plan&);
Engine* make_avx512(const Plan&);
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

Make factory(const std::string& path) {
  for (const std::string& usable : usable_paths()) {
    if (usable != path) continue;
#if defined(WZ_X86)
    if (path == "avx512") return make_avx512;
    if (path == "avx2") return make_avx2;
#endif
    return make_plain;
  }
  return nullptr;
}

}  // namespace wz
