# Warnings and sanitizers for our own targets.
function(lewm_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wno-psabi)
  if(LEWM_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=${LEWM_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${LEWM_SANITIZE})
  endif()
endfunction()
