# Compares the library's exported symbols and the header's struct layouts with the recorded ones.
#   cmake -DLIBRARY=liblewm.so -DLAYOUT=abi_layout -DNM=nm -DRECORDED=abi.txt [-DRECORD=ON] -P abi_check.cmake
# RECORD=ON writes the file instead: do that when the change is meant, and raise the version.
execute_process(COMMAND ${NM} -D --defined-only --format=posix ${LIBRARY} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE "([^ \n]+) [^\n]*" "symbol \\1" symbols "${symbols}")
execute_process(COMMAND ${LAYOUT} OUTPUT_VARIABLE layout COMMAND_ERROR_IS_FATAL ANY)
set(found "${symbols}${layout}")
if(RECORD)
  file(WRITE ${RECORDED} "${found}")
  return()
endif()
file(READ ${RECORDED} recorded)
if(NOT found STREQUAL recorded)
  file(WRITE ${RECORDED}.found "${found}")
  execute_process(COMMAND diff -u ${RECORDED} ${RECORDED}.found)
  file(REMOVE ${RECORDED}.found)
  message(FATAL_ERROR "the ABI differs from ${RECORDED}")
endif()
