resource "docker_image" "web" { name = "registry.example.com/docker:1" }
resource "docker_container" "web" { image = docker_image.web.image_id }
resource "google_compute_instance" "vm" {
  boot_disk { initialize_params { image = "debian-cloud/debian-12" } }
}
resource "kubernetes_deployment" "web" {
  spec { template { spec {
    init_container { image = "registry.example.com/init:1" }
    container {
      image = var.image
      name  = "web"
    }
  } } }
}
variable "image" { default = "registry.example.com/default:1" }
