module example.com/riptrace-bench

go 1.21
