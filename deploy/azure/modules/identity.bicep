// The gateway's identity. Nothing secret belongs to it: a cluster vouches for its pods, Azure for a virtual machine that
// it is assigned to.

param name string
param location string
param tags object

@description('Empty: no cluster may use the identity.')
param clusterIssuer string
param serviceAccount string

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
  tags: tags
}

resource trust 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = if (!empty(clusterIssuer)) {
  parent: identity
  name: 'aoai-gateway'
  properties: {
    issuer: clusterIssuer
    subject: serviceAccount
    audiences: ['api://AzureADTokenExchange']
  }
}

output id string = identity.id
output clientId string = identity.properties.clientId
output principalId string = identity.properties.principalId
