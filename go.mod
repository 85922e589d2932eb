module github.com/seed9bb5c928/nst

go 1.26.8

require (
	github.com/google/renameio/v2 v2.0.2
	github.com/nlpodyssey/gopickle v0.2.0
	github.com/nlpodyssey/safetensors v0.0.0-20250209183917-bfb01cc25f7c
	github.com/stretchr/testify v1.12.1
	github.com/wangkuiyi/gotorch v0.0.0-20201028015551-9afed2f3ad7b
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect
