// The identity that the gateway's pods take on. Nothing secret belongs to it: the cluster vouches for its pods.

param name string
param location string
param tags object
param clusterIssuer string
param serviceAccount string

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
  tags: tags
}

resource trust 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = {
  parent: identity
  name: 'aoai-gateway'
  properties: {
    issuer: clusterIssuer
    subject: serviceAccount
    audiences: ['api://AzureADTokenExchange']
  }
}

output clientId string = identity.properties.clientId
output principalId string = identity.properties.principalId
