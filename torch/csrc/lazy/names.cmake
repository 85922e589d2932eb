# cmake -DNM=nm -DOUT=names.inc -DLIBRARIES="a.so;b.so" -P names.cmake: the functions that
# the libraries offer in C.
set(names "")
foreach(library ${LIBRARIES})
  execute_process(COMMAND "${NM}" -D --defined-only "${library}" OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[0-9a-f]+ T [A-Za-z][A-Za-z0-9_]*" found "${symbols}")
  foreach(line ${found})
    string(REGEX REPLACE ".* T " "" name "${line}")
    list(APPEND names "LAZY(${name})\n")
  endforeach()
endforeach()
list(REMOVE_DUPLICATES names)
string(CONCAT text ${names})
file(WRITE "${OUT}" "${text}")
