target "web" {
  contexts = { base = "docker-image://registry.example.com/base:1", other = "target:other" }
  tags     = ["registry.example.com/web:1"]
}
