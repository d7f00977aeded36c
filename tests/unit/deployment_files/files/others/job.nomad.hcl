# image = "registry.example.com/comment:1"
job "web" {
  group "web" {
    task "web" {
      driver = "docker"
      artifact { source = "https://example.com/image.tgz" }
      config {
        image = "registry.example.com/nomad:1" // the web
        args  = ["image = no"]
      }
      template {
        data = <<EOF
config { image = "registry.example.com/heredoc:1" }
EOF
      }
    }
    task "more" {
      config { image = "registry.example.com/more:${var.version}" }
    }
  }
}
