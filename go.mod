module github.com/gildhq/gild

go 1.26
